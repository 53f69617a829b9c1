"""Figures of one run, drawn with matplotlib: images and points, training curves, score fields and sampling paths."""

import pathlib

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from advdiff_jax.evaluation.score_field import Field

INK = "#1f77b4"
SATURATION = 4.0  # of score fields, in standard deviations of the noise: points farther from the data look alike
SHOWN_SHARE = 99.5  # percentage of the values of float images that lie within the grey range


def value_limit(images: np.ndarray) -> float:
    """Returns the value L of white, with black at -L, so that noise shows on black and on white.

    Args:
        images: examples as stored. 8-bit images are shown as a viewer shows them (L = 1). Float images leave [-1, 1] under
            noise: the range holds SHOWN_SHARE % of their values, rounded up to a tenth.
    """
    if images.dtype == np.uint8:
        return 1.0
    return max(1.0, float(np.ceil(10.0 * np.percentile(np.abs(images), SHOWN_SHARE)) / 10.0))


def grey_range(limit: float) -> str:
    """Returns the sentence on `limit` that a caption needs; "" for [-1, 1]."""
    return "" if limit == 1.0 else f" Black is {-limit:g}, white {limit:g}."


def tile(images: np.ndarray, limit: float = 1.0, gap: int = 1) -> np.ndarray:
    """Builds a canvas of images, between white gaps.

    Args:
        images: rows and columns of images, [R, K, H, W, C].
        limit: the value of white; its negative is black, and values beyond are clipped.
        gap: pixels between two images, and around all.

    Returns:
        [R (H + gap) + gap, K (W + gap) + gap, C], in [0, 1].
    """
    rows, columns, height, width, channels = images.shape
    canvas = np.ones((rows * (height + gap) + gap, columns * (width + gap) + gap, channels))
    for row, column in np.ndindex(rows, columns):
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        shown = images[row, column] / (2.0 * limit) + 0.5
        canvas[top : top + height, left : left + width] = np.clip(shown, 0.0, 1.0)
    return canvas


def show_canvas(axes: Axes, canvas: np.ndarray) -> None:
    """Draws a canvas of `tile`, nearest-neighbour, one unit of the axes a pixel."""
    grey = canvas.shape[-1] != 3
    axes.imshow(canvas[..., 0] if grey else canvas, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")


def grid(images: np.ndarray, count: int, limit: float = 1.0) -> Figure:
    """Draws a square grid of up to `count` images [N, H, W, C]; see `tile` for `limit`."""
    side = max(1, int(np.sqrt(min(count, len(images)))))
    canvas = tile(images[: side * side].reshape(side, side, *images.shape[1:]), limit)
    figure = Figure(figsize=(5, 5 * canvas.shape[0] / canvas.shape[1]), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_canvas(axes, canvas)
    axes.set_axis_off()
    return figure


def points(x: np.ndarray, basis: np.ndarray | None, limit: float) -> Figure:
    """Draws points [N, D]: their first two coordinates, or a plane of basis [2, 3] from its edge and from above.

    `limit` bounds both axes, so that figures of different sets compare.
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


def show(x: np.ndarray, reference: np.ndarray, basis: np.ndarray | None, count: int) -> Figure:
    """Draws the first examples: `count` images as a `grid`, or thirty times as many `points`.

    Args:
        x: images [N, H, W, C] or points [N, D], as floats.
        reference: sets the limits of all figures of a run. Images: training examples as stored; points: clean examples.
        basis: of the plane that holds the points, [2, 3], or None.
        count: of images.
    """
    if x.ndim == 4:
        return grid(x, count, value_limit(reference))
    return points(x[: 30 * count], basis, limit=1.3 * float(np.abs(reference).max()))


def curves(rows: list[dict[str, float]]) -> Figure:
    """Draws training curves from the rows of metrics.jsonl: a panel for each metric, logarithmic if all values are positive."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("step", "steps_per_second")]
    figure = Figure(figsize=(3.2 * max(1, len(names)), 2.6), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        steps, values = zip(*((row["step"], row[name]) for row in rows if name in row), strict=True)
        axes.plot(steps, values, color=INK)
        axes.set(title=name, xlabel="step", yscale="log" if min(values) > 0 else "linear")
        axes.grid(alpha=0.3)
    return figure


def laps(rows: list[dict[str, float]], names: list[str]) -> Figure:
    """Draws results against the lap of EM, a panel each, from rows that hold `lap` and perhaps these names."""
    columns = min(4, max(1, len(names)))
    lines = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines), dpi=100, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for unused in axes[len(names) :]:
        unused.set_axis_off()
    for one, name in zip(axes, names, strict=False):
        one.plot(*zip(*((row["lap"], row[name]) for row in rows if name in row), strict=True), "o-", color=INK)
        one.set(title=name, xlabel="lap", xticks=[row["lap"] for row in rows])
        one.grid(alpha=0.3)
    return figure


def strip(panels: list[tuple[str, pathlib.Path]]) -> Figure:
    """Draws finished PNGs in a row under their captions, for a README or a slide."""
    figure = Figure(figsize=(3.0 * len(panels), 3.3), dpi=100, layout="constrained")
    for axes, (caption, path) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.imshow(matplotlib.image.imread(path))
        axes.set_title(caption)
        axes.set_axis_off()
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
    """Draws score fields, a panel each: arrows show the direction of the score, colours sigma times its length.

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
    """Draws sampling paths, a panel each: from noise (light) to the samples (dots).

    Args:
        panels: (title, states [n + 1, N, 2] in VP units).
        names: of the axes.
        columns: panels of a row.
        half_side: half the side of the square that a panel shows.
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
