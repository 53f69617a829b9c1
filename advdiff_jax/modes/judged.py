"""What the modes share that judge a finished run for a purpose: they write a folder that `compare` reads."""

import logging
import pathlib
from collections.abc import Sequence

import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.evaluation import curves, report
from advdiff_jax.modes.gain import aligned

log = logging.getLogger(__name__)


def write(
    config: ml_collections.ConfigDict,
    out: pathlib.Path,
    name: str,
    numbers: dict[str, float],
    panels: Sequence[curves.Panel],
    sections: Sequence[report.Section],
    summary: str,
) -> pathlib.Path:
    """Writes report.html, plots/`name`.json and .png, config.json and results.json to `out`.

    Args:
        config: as given; `--mode=compare` reads it.
        out: folder of the mode, with plots/ in it.
        name: of the mode.
        numbers: for results.json.
        panels: curves, drawn first on the page.
        sections: of the page, between the curves and the table of all numbers.
        summary: first line of the page.

    Returns:
        the page.
    """
    plots = out / "plots"
    drawn = []
    if panels:
        workdir.write_json(plots / f"{name}.json", curves.as_json(panels))
        curves.draw(panels).savefig(plots / f"{name}.png")
        drawn = [report.Section("Curves", images=[report.image(plots / f"{name}.png", summary, wide=True)])]
    table = report.numbers_table(numbers, lambda one: output_of(one).meaning)
    title = f"{config.name}:{config.variant}: {name}"
    report.write_report(out / "report.html", title, summary, [*drawn, *sections, report.Section("Numbers", table=table)])
    workdir.write_config(out / "config.json", config)
    workdir.write_json(out / "results.json", numbers)  # last: it marks the folder as finished
    return out / "report.html"


def show(table: Sequence[Sequence[str]]) -> None:
    """Prints a table of the page, its columns flushed right."""
    print(aligned(table), end="\n\n")


def folder(out: pathlib.Path, name: str) -> pathlib.Path:
    """Creates the folder of a mode in that of a run's results."""
    (out / name / "plots").mkdir(parents=True, exist_ok=True)
    return out / name
