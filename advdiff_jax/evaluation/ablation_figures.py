"""Figures of many runs: small multiples over settings, and one metric against another.

A table maps run -> metric -> (mean, standard deviation over seeds). Labels of runs are "group/member" or, for a run that
belongs to no group, "member".
"""

from collections.abc import Callable

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.figure import Figure

Table = dict[str, dict[str, tuple[float, float]]]

COLUMNS = 3  # panels of a row of a grid
LABELLED = 60  # points up to which each of a frontier carries its name
LOG_FROM = 5.0  # ratio of the largest to the smallest mean from which an axis is logarithmic
INK, BEST, SHARED = "#1f77b4", "#d62728", "0.45"
MARKERS = "osD^vPX<>*"


def split(label: str) -> tuple[str, str]:
    """(group, member) of a label; the group is "" where there is none."""
    group, slash, member = label.rpartition("/")
    return (group, member) if slash else ("", label)


def grouped(table: Table) -> tuple[dict[str, dict[str, str]], list[str]]:
    """group -> member -> label, in the order of the table; and all members in the order in which they first appear.

    Runs without a group are what all settings share: they are members of every group (of the one group "", if there is no
    other), after its own.
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
    """Of the members (-> label) of a group those that are its own and have the metric; those it shares are no rivals."""
    return {member: label for member, label in labels.items() if split(label)[0] == group and metric in table[label]}


def _logarithmic(values):
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > LOG_FROM * values.min())


def _tick_plainly(axis):
    """1, 2, 5, 10, ... in full, on a logarithmic axis."""
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def grid(table: Table, metric: str, best: Callable[[dict[str, str]], str | None]) -> Figure:
    """Small multiples of one metric: a panel a group, a row a member, the same order and axis in all.

    The best of each group is red; runs that the groups share are grey, and no rivals.

    Args:
        table: see the module.
        metric: which of its metrics; runs that do not have it leave their row empty.
        best: member -> label, of those of a group -> the best of them, or None.
    """
    groups, members = grouped(table)
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    size = (1.8 + 2.5 * columns, 0.7 + rows * (0.7 + 0.22 * len(members)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    place = {member: i for i, member in enumerate(members)}
    everything = [metrics[metric][0] for metrics in table.values() if metric in metrics]
    for axes, (group, labels) in zip(panels.flat, groups.items(), strict=False):
        shown = [(member, *table[label][metric]) for member, label in labels.items() if metric in table[label]]
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
        _tick_plainly(panels[0, 0].xaxis)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    for column in range(columns):  # the lowest panel of each column has the numbers, also where the last row is not full
        lowest = panels[(len(groups) - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(metric)
    return figure


def frontier(table: Table, x: str, y: str) -> Figure:
    """One metric against another with errors in both: a group is a series, joined in the order of its runs.

    Args:
        table: see the module; runs without one of the two metrics are left out.
        x: metric of the horizontal axis.
        y: metric of the vertical one.
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
        (xs, x_errors), (ys, y_errors) = (np.array([table[label][metric] for label in labels]).T for metric in (x, y))
        style = {"fmt": MARKERS[i % len(MARKERS)], "linestyle": "-" if len(labels) > 1 else "none"}
        axes.errorbar(xs, ys, y_errors, x_errors, color=color, capsize=2, markersize=6, label=name, alpha=0.9, **style)
        for at_x, at_y, label in zip(xs, ys, labels, strict=True):
            if count <= LABELLED and label != name:
                text = split(label)[1]
                axes.annotate(text, (at_x, at_y), (5, 4), textcoords="offset points", fontsize=8, color=color)
    axes.set(xlabel=x, ylabel=y)
    means = np.array([[table[label][metric][0] for metric in (x, y)] for labels in series.values() for label in labels])
    for axis, scale, values in zip(
        (axes.xaxis, axes.yaxis), (axes.set_xscale, axes.set_yscale), means.reshape(-1, 2).T, strict=True
    ):
        if _logarithmic(values):
            scale("log")
            _tick_plainly(axis)
    axes.grid(alpha=0.3)
    axes.margins(0.08)
    if series:
        figure.legend(loc="outside right upper", fontsize=9)
    return figure
