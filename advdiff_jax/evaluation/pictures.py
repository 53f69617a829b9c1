"""Pictures of data and of numbers, as matplotlib figures."""

import pathlib

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

INK = "#1f77b4"


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
    names = [name for name in rows[-1] if name not in ("step", "steps_per_second")] if rows else []
    figure = Figure(figsize=(3.2 * max(1, len(names)), 2.6), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        values = [row[name] for row in rows]
        axes.plot([row["step"] for row in rows], values, color=INK)
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
    """A panel a metric, a bar a run with its error: table maps run -> metric -> (mean, standard deviation over seeds)."""
    labels = list(table)
    figure = Figure(figsize=(1.6 + 2.6 * len(metrics), 0.9 + 0.3 * len(labels)), dpi=100, layout="constrained")
    for column, (axes, name) in enumerate(zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True)):
        cells = [table[label].get(name, (np.nan, np.nan)) for label in labels]
        means, errors = np.array(cells, float).T
        axes.barh(labels, means, xerr=np.nan_to_num(errors), color=INK, ecolor="0.3", capsize=2)
        axes.invert_yaxis()
        finite = means[np.isfinite(means) & (means > 0)]
        if len(finite) == len(means) and finite.max() > 20 * finite.min():
            axes.set_xscale("log")
        axes.set_title(name)
        axes.grid(axis="x", alpha=0.3)
        if column:
            axes.set_yticklabels([])
    return figure
