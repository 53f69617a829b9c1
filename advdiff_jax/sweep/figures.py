"""Figures of many runs: bars, small multiples over settings, one metric against another, and images side by side.

A table maps run -> metric -> `Moments` over seeds. The label of a run is "group/member", or "member" for a run without a group.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from advdiff_jax.evaluation.curves import tick_plainly
from advdiff_jax.evaluation.figures import show_canvas, tile


class Moments(NamedTuple):
    """The mean and the standard deviation (with n - 1, 0 for n = 1) of a number over n seeds."""

    mean: float
    std: float
    n: int


Table = dict[str, dict[str, Moments]]

COLUMNS = 3  # panels of a row of a grid
BAR_COLUMNS = 4  # panels of a row of bars
LABELLED = 60  # a frontier with at most this many points names each
LOG_FROM = 5.0  # ratio of the largest to the smallest mean from which an axis is logarithmic
INK, BEST, SHARED = "#1f77b4", "#d62728", "0.45"
MARKERS = "osD^vPX<>*"
IMAGES_OF_ROW = 5  # of a side-by-side figure
IMAGE_SIDE, LABEL_HEIGHT, MARGIN, BARS_WIDTH = 0.68, 0.27, 0.08, 1.7  # of a side-by-side figure, inches


def moments(results: list[dict[str, float]]) -> dict[str, Moments]:
    """Returns name -> `Moments` over the seeds that have the number."""
    names = dict.fromkeys(name for result in results for name in result)
    values = {name: [result[name] for result in results if name in result] for name in names}
    return {name: Moments(float(np.mean(x)), float(np.std(x, ddof=int(len(x) > 1))), len(x)) for name, x in values.items()}


def with_own_error(numbers: dict[str, Moments], name: str) -> Moments:
    """Returns a number of a run; with one seed its deviation is NAME_std, the measure's own standard error, if it has one."""
    found = numbers[name]
    own = numbers.get(f"{name}_std")
    return found._replace(std=own.mean) if found.n == 1 and own is not None else found


def split(label: str) -> tuple[str, str]:
    """Splits a label into (group, member); a run without a group has the group ""."""
    group, slash, member = label.rpartition("/")
    return (group, member) if slash else ("", label)


def grouped(table: Table) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Sorts runs into group -> member -> label, and lists all members; both keep the order of the table.

    All groups share the runs without a group, and list them after their own. Without any group, the group "" holds all runs.
    """
    groups: dict[str, dict[str, str]] = {}
    shared = {}
    for label in table:
        group, member = split(label)
        (groups.setdefault(group, {}) if group else shared)[member] = label
    groups = {group: own | {m: label for m, label in shared.items() if m not in own} for group, own in groups.items()}
    groups = groups or {"": shared}
    own = {member: None for members in groups.values() for member in members if member not in shared}
    return groups, [*own, *shared]


def rivals(table: Table, metric: str, group: str, labels: dict[str, str]) -> dict[str, str]:
    """Returns member -> label of the runs that compete in a group: its own, with the metric; shared runs do not compete."""
    return {member: label for member, label in labels.items() if split(label)[0] == group and metric in table[label]}


def _logarithmic(values):
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > LOG_FROM * values.min())


def bars(table: Table, metrics: list[str]) -> Figure:
    """Draws a panel for each metric, BAR_COLUMNS in a row, with a bar and its error for each run.

    METRIC_clean and METRIC_dirty, the numbers of the data, are lines in the panel of METRIC.
    """
    labels = list(table)
    lines = {"clean": "-", "dirty": ":"}
    of_data = {f"{name}_{kind}" for name in metrics for kind in lines}.intersection(metrics)
    shown = [name for name in metrics if name not in of_data]
    columns = min(BAR_COLUMNS, len(shown))
    lines_of_panels = -(-len(shown) // columns)
    size = (1.6 + 2.6 * columns, lines_of_panels * (0.9 + 0.3 * len(labels)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(lines_of_panels, columns, squeeze=False, sharey=True).flat
    for axes in panels[len(shown) :]:
        figure.delaxes(axes)
    rows = np.arange(len(labels))
    for axes, name in zip(panels, shown, strict=False):
        absent = Moments(np.nan, np.nan, 0)
        cells = [with_own_error(table[label], name) if name in table[label] else absent for label in labels]
        means, errors, _ = np.array(cells, float).T
        errors = np.nan_to_num(errors)
        axes.barh(rows, means, xerr=errors if errors.any() else None, color=INK, ecolor="0.3", capsize=2)
        finite = means[np.isfinite(means) & (means > 0)]
        if len(finite) == len(means) and finite.max() > 20 * finite.min():
            axes.set_xscale("log")
        for kind, style in lines.items():
            known = f"{name}_{kind}"
            values = [table[label][known].mean for label in labels if known in table[label]]
            if known in of_data and values:
                axes.axvline(np.mean(values), color="black", linestyle=style, label=kind)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, framealpha=0.8, loc="lower right")
        axes.set_title(name)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set(yticks=rows, yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))  # a run without a value keeps its row
    return figure


def grid(table: Table, metric: str, best: Callable[[dict[str, str]], str | None]) -> Figure:
    """Draws small multiples of one metric: a panel for each group, a row for each member, on common axes.

    The best run of each group is red; shared runs are grey, and do not compete.

    Args:
        table: see the module.
        metric: of the table; a run without it has an empty row.
        best: member -> label, of the rivals in a group -> the best member, or None.
    """
    groups, members = grouped(table)
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    size = (1.8 + 2.5 * columns, 0.7 + rows * (0.7 + 0.22 * len(members)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    place = {member: i for i, member in enumerate(members)}
    everything = [metrics[metric].mean for metrics in table.values() if metric in metrics]
    for axes, (group, labels) in zip(panels.flat, groups.items(), strict=False):
        shown = [
            (member, table[label][metric].mean, table[label][metric].std)
            for member, label in labels.items()
            if metric in table[label]
        ]
        own = rivals(table, metric, group, labels)
        first = best(own)
        for member, mean, std in shown:
            color = BEST if member == first else INK if member in own else SHARED
            axes.errorbar(mean, place[member], xerr=std, fmt="o", markersize=4, color=color, capsize=2)
        axes.set_title(group or metric, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0, 0].set(yticks=range(len(members)), yticklabels=members, ylim=(len(members) - 0.5, -0.5))
    if _logarithmic(everything):
        panels[0, 0].set_xscale("log")
        tick_plainly(panels[0, 0].xaxis)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    for column in range(columns):  # the last row may not be full: the lowest panel of each column has the numbers
        lowest = panels[(len(groups) - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(metric)
    return figure


def frontier(table: Table, x: str, y: str) -> Figure:
    """Draws one metric against another, with errors in both; a group is a line through its runs, in their order.

    Args:
        table: see the module; runs that lack a metric are left out.
        x: metric of the horizontal axis.
        y: metric of the vertical axis.
    """
    figure = Figure(figsize=(8.5, 6.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    series: dict[str, list[str]] = {}
    for label, metrics in table.items():
        if x in metrics and y in metrics:
            group = split(label)[0]
            series.setdefault(group or label, []).append(label)
    count = sum(map(len, series.values()))
    for i, (name, labels) in enumerate(series.items()):
        color = colormaps["tab10" if len(series) <= 10 else "tab20"](i % 20)
        (xs, x_errors, _), (ys, y_errors, _) = (np.array([table[label][metric] for label in labels]).T for metric in (x, y))
        style = {"fmt": MARKERS[i % len(MARKERS)], "linestyle": "-" if len(labels) > 1 else "none"}
        axes.errorbar(xs, ys, y_errors, x_errors, color=color, capsize=2, markersize=6, label=name, alpha=0.9, **style)
        for at_x, at_y, label in zip(xs, ys, labels, strict=True):
            if count <= LABELLED and label != name:
                text = split(label)[1]
                axes.annotate(text, (at_x, at_y), (5, 4), textcoords="offset points", fontsize=8, color=color)
    axes.set(xlabel=x, ylabel=y)
    means = np.array([[table[label][metric].mean for metric in (x, y)] for labels in series.values() for label in labels])
    for axis, scale, values in zip(
        (axes.xaxis, axes.yaxis), (axes.set_xscale, axes.set_yscale), means.reshape(-1, 2).T, strict=True
    ):
        if _logarithmic(values):
            scale("log")
            tick_plainly(axis)
    axes.grid(alpha=0.3)
    axes.margins(0.08)
    if series:
        figure.legend(loc="outside right upper", fontsize=9)
    return figure


def formatted(values: list[float]) -> list[str]:
    """Formats numbers to compare, all with the decimals that give the largest two digits."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    decimals = max(0, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]  # + 0.0: no -0.00


class Row(NamedTuple):
    """A row of `side_by_side`.

    Attributes:
        label: names the run, or the data.
        images: [N, H, W, C], as floats.
        bar: the number beside the images, or None.
        is_data: the images are data, not samples.
    """

    label: str
    images: np.ndarray
    bar: Moments | None
    is_data: bool


def side_by_side(rows: list[Row], limit: float, metric: str) -> Figure:
    """Draws a row of images for each run, and for the data, with a number of each as a bar in the same row.

    Args:
        rows: from top to bottom.
        limit: the value of white, in all images; see `evaluation.figures.tile`.
        metric: the name of the bars; without any bar there is no panel of bars.
    """
    columns = min(IMAGES_OF_ROW, *(len(row.images) for row in rows))
    width = rows[0].images.shape[2]
    gap = max(1, width // 16)
    canvases = [tile(row.images[None, :columns], limit, gap)[gap:-gap, gap:-gap] for row in rows]
    wide, high = columns * IMAGE_SIDE, columns * IMAGE_SIDE * canvases[0].shape[0] / canvases[0].shape[1]
    barred = any(map(_has_bar, rows))
    size = (wide + 2 * MARGIN + (BARS_WIDTH if barred else 0.0), len(rows) * (high + LABEL_HEIGHT) + LABEL_HEIGHT)
    figure = Figure(figsize=size, dpi=160)
    tops = LABEL_HEIGHT + np.arange(len(rows)) * (high + LABEL_HEIGHT)  # inches from the upper edge
    for row, canvas, top in zip(rows, canvases, tops, strict=True):
        axes = figure.add_axes((MARGIN / size[0], 1.0 - (top + high) / size[1], wide / size[0], high / size[1]))
        show_canvas(axes, canvas)
        axes.set_axis_off()
        axes.set_title(row.label, loc="left", pad=4, fontsize=11, color=SHARED if row.is_data else "black")
    if limit != 1.0:
        figure.text(MARGIN / size[0], 0.05 / size[1], f"black: {-limit:g}, white: {limit:g}", fontsize=9, color=SHARED)
    if barred:
        left = (wide + 3 * MARGIN) / size[0]
        axes = figure.add_axes((left, 0.0, 1.0 - left, 1.0), ylim=(size[1], 0.0))
        _bars_of_rows(axes, rows, tops, high, metric)
    return figure


def _has_bar(row):
    return row.bar is not None and np.isfinite(row.bar.mean)


def _bars_of_rows(axes, rows, tops, high, metric):
    """Draws a bar with its number at the height of each row, and lines at the numbers of the data."""
    barred = [(row, top + high / 2) for row, top in zip(rows, tops, strict=True) if _has_bar(row)]
    numbers = formatted([row.bar.mean for row, _ in barred])
    for (row, centre), number in zip(barred, numbers, strict=True):
        mean, std, _ = row.bar
        axes.barh(centre, mean, 0.5 * high, color=SHARED if row.is_data else INK, xerr=std or None, ecolor="0.3", capsize=2)
        text = axes.annotate(number, (mean + std, centre), (5, 0), textcoords="offset points", va="center", fontsize=11)
        text.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 1.5})
        if row.is_data:
            axes.vlines(mean, tops[0], tops[-1] + high, color="0.3", linewidth=0.9, linestyle=":", zorder=0)
    ends = [row.bar.mean + row.bar.std for row, _ in barred]
    lowest, highest = min([0.0, *ends]), max([0.0, *ends])
    axes.set_xlim(lowest, highest + 0.45 * ((highest - lowest) or 1.0))  # room for the numbers
    axes.vlines(0.0, tops[0], tops[-1] + high, color="black", linewidth=1.6)
    axes.text(0.0, tops[0], metric.replace("_", " "), va="bottom", fontsize=11)
    axes.set_axis_off()
