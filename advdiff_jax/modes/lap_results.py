"""What a run of several laps (EM, see `modes.laps`) shows of each: a row of a table, and a point of a figure."""

import json
import pathlib
from typing import NamedTuple

from advdiff_jax import workdir
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.evaluation import figures, report

ABOUT = "draws.json"  # what an E-step cost, in the folder of its lap


def ranked(results: dict[str, float]) -> dict[str, float]:
    """Returns those of some results of which one value is better than another."""
    return {name: value for name, value in results.items() if output_of(name).best}


class Earlier(NamedTuple):
    """An earlier lap of a run.

    Attributes:
        results: of its own model; {} where it has none.
        draws: `network_evaluations` and `seconds` of its E-step.
    """

    results: dict[str, float]
    draws: dict[str, float]


def earlier(folder: pathlib.Path) -> list[Earlier]:
    """Reads the earlier laps of the run in `folder`, in their order; [] for a run without laps."""
    found, number = [], 0
    while (about := (lap := folder / workdir.LAPS / str(number)) / ABOUT).exists():
        path = lap / "results.json"
        found.append(Earlier(workdir.read_results(path) if path.exists() else {}, json.loads(about.read_text())))
        number += 1
    return found


def section(found: list[Earlier], last: dict[str, float], plots: pathlib.Path) -> report.Section:
    """Builds the section on all laps: a row and a point of the figure each.

    Args:
        found: the earlier laps.
        last: results of the last lap, with the `network_evaluations` of all.
        plots: folder for the figure.
    """
    known = {name for lap in found for name in lap.results}  # earlier laps have no diagnostics
    names, rows, spent = [name for name in ranked(last) if name in known or not known], [], 0.0
    for number, lap in enumerate(found):
        spent += lap.results.get("network_evaluations", 0.0)
        rows.append({"lap": number, **ranked(lap.results), "network_evaluations": spent})
        spent += lap.draws.get("network_evaluations", 0.0)
    rows.append({"lap": len(found), **last})
    figures.laps(rows, names).savefig(plots / "laps.png")
    cells = [
        [str(row["lap"]), *(report.number(row[name]) if name in row else "" for name in (*names, "network_evaluations"))]
        for row in rows
    ]
    caption = "Results against the lap; lap 0 is the first model."
    image = report.image(plots / "laps.png", caption, wide=True)
    return report.Section("Laps", table=[["lap", *names, "network_evaluations so far"], *cells], images=[image])
