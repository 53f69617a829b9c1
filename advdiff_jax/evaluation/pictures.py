"""Pictures of data and of numbers, as matplotlib figures."""

import pathlib

import matplotlib.image
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from advdiff_jax.evaluation.fields import Field

INK = "#1f77b4"
SATURATION = 4.0  # of score fields: further than so many standard deviations of the noise from the data, all looks alike


def grid(pictures: np.ndarray, count: int) -> Figure:
    """A square grid of up to `count` pictures [N, H, W, C] in [-1, 1], nearest-neighbour, one pixel of gap."""
    side = max(1, int(np.sqrt(min(count, len(pictures)))))
    height, width, channels = pictures.shape[1:]
    canvas = np.ones((side * (height + 1) + 1, side * (width + 1) + 1, channels))
    for i in range(side * side):
        row, column = divmod(i, side)
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        canvas[top : top + height, left : left + width] = np.clip(pictures[i] / 2 + 0.5, 0.0, 1.0)
    figure = Figure(figsize=(5, 5 * canvas.shape[0] / canvas.shape[1]), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas if channels == 3 else canvas[..., 0], cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure


def points(x: np.ndarray, basis: np.ndarray | None, limit: float) -> Figure:
    """Points [N, D]: the first two coordinates, or, for a plane's basis [2, 3], the plane from its edge and from above.

    `limit` bounds both axes, so that pictures of different sets can be compared.
    """
    if basis is None:
        views = [("x1", "x2", x[:, :2])]
    else:
        normal = np.cross(*basis)
        on_plane = x @ basis.T
        views = [
            ("along the plane", "off the plane", np.stack([on_plane[:, 0], x @ normal], 1)),
            ("on the plane, 1", "on the plane, 2", on_plane),
        ]
    figure = Figure(figsize=(3.2 * len(views), 3.2), dpi=100, layout="constrained")
    for axes, (xlabel, ylabel, view) in zip(figure.subplots(1, len(views), squeeze=False)[0], views, strict=True):
        axes.scatter(*view.T, s=2, alpha=0.4, linewidths=0, color=INK)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return figure


def show(x: np.ndarray, clean: np.ndarray, basis: np.ndarray | None, count: int) -> Figure:
    """`grid` for pictures, `points` (thirty times as many) for points; `clean` sets the limits of the axes."""
    if x.ndim == 4:
        return grid(x, count)
    return points(x[: 30 * count], basis, limit=1.3 * float(np.abs(clean).max()))


def curves(rows: list[dict[str, float]]) -> Figure:
    """Training curves from the rows of metrics.jsonl: a panel a metric, logarithmic where it is positive."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("step", "steps_per_second")]
    figure = Figure(figsize=(3.2 * max(1, len(names)), 2.6), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        steps, values = zip(*((row["step"], row[name]) for row in rows if name in row), strict=True)
        axes.plot(steps, values, color=INK)
        axes.set(title=name, xlabel="step", yscale="log" if min(values) > 0 else "linear")
        axes.grid(alpha=0.3)
    return figure


def strip(panels: list[tuple[str, pathlib.Path]]) -> Figure:
    """Finished PNGs side by side under their captions, for a README or a slide."""
    figure = Figure(figsize=(3.0 * len(panels), 3.3), dpi=100, layout="constrained")
    for axes, (caption, path) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(matplotlib.image.imread(path))
        axes.set_title(caption)
        axes.set_axis_off()
    return figure


def bars(table: dict[str, dict[str, tuple[float, float]]], metrics: list[str]) -> Figure:
    """A panel a metric, a bar a run with its error: table maps run -> metric -> (mean, standard deviation over seeds).

    What METRIC_clean and METRIC_dirty tell of the data are lines in the panel of METRIC.
    """
    labels = list(table)
    lines = {"clean": "-", "dirty": ":"}
    of_data = {f"{name}_{kind}" for name in metrics for kind in lines}.intersection(metrics)
    shown = [name for name in metrics if name not in of_data]
    figure = Figure(figsize=(1.6 + 2.6 * len(shown), 0.9 + 0.3 * len(labels)), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    rows = np.arange(len(labels))
    for axes, name in zip(panels, shown, strict=True):
        cells = [table[label].get(name, (np.nan, np.nan)) for label in labels]
        means, errors = np.array(cells, float).T
        errors = np.nan_to_num(errors)
        axes.barh(rows, means, xerr=errors if errors.any() else None, color=INK, ecolor="0.3", capsize=2)
        finite = means[np.isfinite(means) & (means > 0)]
        if len(finite) == len(means) and finite.max() > 20 * finite.min():
            axes.set_xscale("log")
        for kind, style in lines.items():
            known = f"{name}_{kind}"
            values = [table[label][known][0] for label in labels if known in table[label]]
            if known in of_data and values:
                axes.axvline(np.mean(values), color="black", linestyle=style, label=kind)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, framealpha=0.8, loc="lower right")
        axes.set_title(name)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set(yticks=rows, yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))  # a run without a value keeps its row
    return figure


def _panels(count, columns, side=3.0):
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(side * columns + 0.6, (side + 0.2) * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return figure, axes


def score_fields(panels: list[tuple[str, Field, int]], names: tuple[str, str], columns: int) -> Figure:
    """Score fields, a panel each: arrows show the direction of the score, colours sigma times its length.

    Args:
        panels: (title, field, index of the level).
        names: of the axes.
        columns: panels of a row.
    """
    figure, axes = _panels(len(panels), columns)
    for one, (title, field, level) in zip(axes.flat, panels, strict=False):
        arrows = -field.noise[level]
        length = np.linalg.norm(arrows, axis=-1, keepdims=True)
        side = int(np.sqrt(len(field.points)))
        extent = field.points[-1, 0] * (1 + 1 / (side - 1))
        shown = one.imshow(
            length.reshape(side, side),
            origin="lower",
            extent=(-extent, extent, -extent, extent),
            vmin=0.0,
            vmax=SATURATION,
            cmap="viridis",
            interpolation="bilinear",
        )
        unit = arrows / np.maximum(length, 1e-9)
        one.quiver(*field.points.T, *unit.T, color="white", scale=1.3 * side, width=0.004, pivot="mid")
        one.set_title(title, fontsize=9)
    for one in axes[-1]:
        one.set_xlabel(names[0])
    for one in axes[:, 0]:
        one.set_ylabel(names[1])
    figure.colorbar(shown, ax=axes, shrink=0.7, extend="max", label="sigma times the length of the score")
    return figure


def trajectories(panels: list[tuple[str, np.ndarray]], names: tuple[str, str], columns: int, half_side: float) -> Figure:
    """Sampling paths [n + 1, N, 2], a panel each: from noise (light) to the sample (dots).

    Args:
        panels: (title, states in VP units).
        names: of the axes.
        columns: panels of a row.
        half_side: half the side of the square that is shown.
    """
    figure, axes = _panels(len(panels), columns)
    for one, (title, states) in zip(axes.flat, panels, strict=False):
        pieces = np.stack([states[:-1], states[1:]], axis=2).reshape(-1, 2, 2)
        shade = np.repeat(np.linspace(0.15, 1.0, len(states) - 1), states.shape[1])
        one.add_collection(LineCollection(pieces, array=shade, cmap="Blues", linewidths=0.7, clim=(0.0, 1.0)))
        one.scatter(*states[-1].T, s=9, color="#d62728", linewidths=0, zorder=3)
        one.set_title(title, fontsize=9)
        one.set(xlim=(-half_side, half_side), ylim=(-half_side, half_side), aspect="equal")
    for one in axes[-1]:
        one.set_xlabel(names[0])
    for one in axes[:, 0]:
        one.set_ylabel(names[1])
    return figure
