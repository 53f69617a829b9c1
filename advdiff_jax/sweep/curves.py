"""Curves of several runs, from the JSON files that diagnostics leave in plots/ (see `evaluation.curves`)."""

import json
import logging
import pathlib

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax.evaluation import curves
from advdiff_jax.sweep.figures import Table

log = logging.getLogger(__name__)

Finished = dict[str, list[pathlib.Path]]  # label -> folders of its finished runs, one a seed

MOST_LINES = 12  # of a panel; of more, those of attacks that are weaker by construction are left out
WEAKER = (", fgsm", ", random")


def read(path: pathlib.Path) -> list[curves.Panel]:
    """Returns the panels of a JSON file; [] if it holds other things."""
    stored = json.loads(path.read_text())
    panels = stored.get("panels", []) if isinstance(stored, dict) else []
    return [
        curves.Panel(**{**panel, "series": {label: curves.Series(**line) for label, line in panel["series"].items()}})
        for panel in panels
    ]


def over_seeds(lines: list[curves.Series]) -> list[curves.Series]:
    """Returns one line, the mean over seeds with a band of one standard deviation; the lines as they are if their x differ."""
    first, *others = lines
    if not others:
        return lines
    if not all(len(one.x) == len(first.x) and np.allclose(one.x, first.x) for one in others):
        return [curves.Series(one.x, one.y) for one in lines]
    y = np.stack([one.y for one in lines])
    mean, std = y.mean(axis=0), y.std(axis=0, ddof=1)
    return [curves.Series(first.x, mean, mean - std, mean + std)]


def joint(runs: dict[str, list[list[curves.Panel]]]) -> list[curves.Panel]:
    """Joins the panels of one title: "run, line" is a line of the joint panel, and a run has one colour.

    Args:
        runs: label -> the panels of each seed.
    """
    found: dict[str, curves.Panel] = {}
    lines: dict[str, dict[tuple[str, str], list[curves.Series]]] = {}
    for label, seeds in runs.items():
        for panel in (panel for panels in seeds for panel in panels):
            found.setdefault(panel.title, panel)
            for name, line in panel.series.items():
                name = "" if len(panel.series) == 1 else name
                lines.setdefault(panel.title, {}).setdefault((label, name), []).append(line)
    return [panel._replace(series=_named(_shown(lines[title]))) for title, panel in found.items()]


def _shown(lines):
    if len(lines) <= MOST_LINES:
        return lines
    return {(label, name): found for (label, name), found in lines.items() if not name.endswith(WEAKER)}


def _named(lines):
    series = {}
    for (label, name), seeds in lines.items():
        several = over_seeds(seeds)
        for i, line in enumerate(several):
            parts = [label.replace(", ", " "), name, f"seed {i}" if len(several) > 1 else ""]
            series[", ".join(filter(None, parts))] = line
    return series


def figures(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[tuple[str, str, Figure]]:
    """Draws a figure for each file of curves that a finished run has; (file stem, caption, figure)."""
    runs: dict[str, dict[str, list[list[curves.Panel]]]] = {}
    for label, folders in finished.items():
        for path in (path for folder in folders for path in sorted(folder.glob("plots/*.json"))):
            if panels := read(path):
                runs.setdefault(path.stem, {}).setdefault(label, []).append(panels)
    if not runs:
        log.warning("config.figures: curves shows those that diagnostics write, and no finished run has any")
    several = any(len(folders) > 1 for folders in finished.values())
    caption = "{}, each run.{}"
    band = " Bands: one standard deviation over seeds." if several else ""
    return [
        (f"curve_{stem}", caption.format(stem.replace("_", " ").capitalize(), band), curves.draw(joint(found)))
        for stem, found in runs.items()
    ]
