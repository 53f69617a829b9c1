"""Curves of one run, drawn, and written as JSON that a joint figure of several runs reads.

The file holds {"panels": [panel, ...]}, each {"title", "xlabel", "ylabel", "xscale", "yscale", "series"}; "series" maps a
label to {"x": [...], "y": [...]}, with "low" and "high" where there is a band. All values are finite.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.axis import Axis
from matplotlib.figure import Figure


class Series(NamedTuple):
    """A line: x and y, [N] each, and the ends of a band around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Panel(NamedTuple):
    """Lines over one axis. The part of a label before a comma gives the colour, the whole label the style."""

    title: str
    xlabel: str
    ylabel: str
    series: dict[str, Series]
    xscale: str = "linear"
    yscale: str = "linear"


STYLES = ("-", "--", ":", "-.")
PANEL, HANDLE, CHARACTER = 5.0, 0.7, 0.07  # inches: widths of a panel, and of a legend's line and of its letters


def as_json(panels: Sequence[Panel]) -> dict:
    """Returns the contents of the file that the module docstring describes; points that are not finite are left out."""
    return {"panels": [_plain(panel) for panel in panels]}


def _plain(panel):
    series = {}
    for label, line in panel.series.items():
        parts = {name: np.asarray(values, float) for name, values in line._asdict().items() if len(values)}
        kept = np.all([np.isfinite(values) for values in parts.values()], axis=0)
        series[label] = {name: values[kept].tolist() for name, values in parts.items()}
    return panel._asdict() | {"series": series}


def draw(panels: Sequence[Panel], columns: int = 3) -> Figure:
    """Draws the panels side by side, `columns` in a row; below one legend, or one for each panel if their lines differ."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(7.0, PANEL * columns), 4.6 * rows), dpi=100, layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False).ravel())[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel)
    if len({tuple(panel.series) for panel in panels}) == 1:
        _legend(figure, *grid[0].get_legend_handles_labels(), figure.get_figwidth(), loc="outside lower center")
    else:
        for axes in grid[: len(panels)]:
            _legend(axes, *axes.get_legend_handles_labels(), PANEL, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _legend(owner, handles, labels, inches, **where):
    """Draws a legend in as many columns as its labels leave room for, and breaks labels that are too long for one."""
    labels = [textwrap.fill(label, int((inches - HANDLE) / CHARACTER)) for label in labels]
    longest = max((len(line) for label in labels for line in label.splitlines()), default=1)
    owner.legend(handles, labels, fontsize=8, ncols=max(1, int(inches / (HANDLE + CHARACTER * longest))), **where)


def tick_plainly(axis: Axis) -> None:
    """Labels a logarithmic axis with 1, 2, 5, 10, ... in full."""
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def _draw_panel(axes, panel):
    colours, styles = {}, {}
    for label, line in panel.series.items():
        kind, _, style = label.partition(", ")
        colour = colours.setdefault(kind, colormaps["tab10"](len(colours) % 10))
        drawn = styles.setdefault(style, STYLES[len(styles) % len(STYLES)])
        axes.plot(line.x, line.y, drawn, color=colour, marker="o", markersize=4, label=label)
        if len(line.low):
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    axes.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, xscale=panel.xscale, yscale=panel.yscale)
    for axis, scale in ((axes.xaxis, panel.xscale), (axes.yaxis, panel.yscale)):
        if scale == "log":
            tick_plainly(axis)
    axes.grid(alpha=0.25)
