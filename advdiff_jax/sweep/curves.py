"""Curves of several runs, from the JSON files that diagnostics leave in plots/: means over seeds, with their deviation."""

import json
import logging
import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from advdiff_jax.sweep.figures import MARKERS, Table

log = logging.getLogger(__name__)

Finished = dict[str, list[pathlib.Path]]  # label -> folders of its finished runs, one a seed


class CurveFile(NamedTuple):
    """What is known of a file plots/NAME.json.

    Attributes:
        x: name of the list that all other curves of the file are drawn over.
        x_label: in words.
        title: caption of the figure.
        is_log: whether the axis of x is logarithmic.
    """

    x: str
    x_label: str
    title: str
    is_log: bool = True


class Curve(NamedTuple):
    """A curve of a run, [n] each."""

    x: np.ndarray
    y: np.ndarray


# Each file: lists of one length, or objects of such lists by name (a sampler, a threat), which are curves of their own.
FILES = {
    "gain": CurveFile("std", "standard deviation of the training data in a direction", "Gain of the samples"),
    "denoising": CurveFile("level", "sigma / alpha at t*", "Held-out dirty images, diffused to t* and sampled back"),
    "few_steps": CurveFile("evaluations", "network evaluations a sample", "Metrics against network evaluations"),
    "attack": CurveFile("kappa", "budget over sigma(t)", "Attacks on the sampling trajectory", is_log=False),
}


def read(path: pathlib.Path, x_name: str) -> dict[str, Curve]:
    """Reads the curves of a file by name; "sampler metric" for one of an object of curves.

    Lists of another length than that of `x_name`, and values that are not numbers, are no curves.
    """
    return _curves(json.loads(path.read_text()), x_name)


def _curves(stored, x_name, prefix=""):
    found, x = {}, stored.get(x_name)
    for name, value in stored.items():
        if isinstance(value, dict):
            found |= _curves(value, x_name, f"{prefix}{name} ")
        elif name != x_name and isinstance(x, list) and isinstance(value, list) and len(value) == len(x):
            found[prefix + name] = Curve(np.asarray(x, float), np.asarray(value, float))
    return found


def joint(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns x, mean and standard deviation over seeds, [n] each; None where the curves have different x."""
    if not all(len(one.x) == len(curves[0].x) and np.allclose(one.x, curves[0].x) for one in curves):
        return None
    y = np.stack([one.y for one in curves])
    return curves[0].x, y.mean(axis=0), y.std(axis=0, ddof=int(len(y) > 1))


def draw(runs: dict[str, list[dict[str, Curve]]], about: CurveFile) -> Figure:
    """Draws a panel for each name of a curve, with a line for each run; bars are one standard deviation over seeds.

    Seeds whose x differ (those of `gain` are of the data) have a thin line each.

    Args:
        runs: label -> the curves of each seed.
        about: of the file.
    """
    names = list(dict.fromkeys(name for seeds in runs.values() for one in seeds for name in one))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.2 + 3.6 * columns, 0.8 + 2.9 * rows), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        for i, (label, seeds) in enumerate(runs.items()):
            _draw_run(axes, label, [one[name] for one in seeds if name in one], i)
        axes.set(title=name.replace("_", " "), xlabel=about.x_label, xscale="log" if about.is_log else "linear")
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    handles = {label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, fontsize=9)
    return figure


def _draw_run(axes, label, curves, i):
    if not curves:
        return
    style = {"color": colormaps["tab10"](i % 10), "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
    if (found := joint(curves)) is None:
        for seed, one in enumerate(curves):
            axes.plot(one.x, one.y, linewidth=0.8, label=label if seed == 0 else None, **style)
        return
    x, mean, std = found
    axes.errorbar(x, mean, std if len(curves) > 1 else None, capsize=2, label=label, **style)


def figures(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[tuple[str, str, Figure]]:
    """Draws a figure for each file of curves that a finished run has; (file stem, caption, figure)."""
    found = []
    for stem, about in FILES.items():
        runs = {}
        for label, folders in finished.items():
            files = [folder / "plots" / f"{stem}.json" for folder in folders]
            seeds = [curves for file in files if file.exists() and (curves := read(file, about.x))]
            runs |= {label: seeds} if seeds else {}
        if runs:
            n = max(map(len, runs.values()))
            over = f" over {n} seeds, with their standard deviation" if n > 1 else ""
            found.append((f"curve_{stem}", f"{about.title}: each run{over}.", draw(runs, about)))
    if not found:
        log.warning("config.figures: curves shows what diagnostics write (%s), and no finished run has any", ", ".join(FILES))
    return found
