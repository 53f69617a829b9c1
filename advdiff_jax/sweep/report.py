"""The joint report of a list of runs: tables, figures and, for short lists, the samples of each run."""

import json
import os
import pathlib
import urllib.parse
from collections.abc import Callable

import markupsafe
import ml_collections
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax.builders import published
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.registry import find
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import report
from advdiff_jax.sweep import curves, figures, samples, setups
from advdiff_jax.sweep.curves import Finished
from advdiff_jax.sweep.figures import Moments, Table

MOST_DRAWN = 16  # a report of more runs leaves out their samples and fields: they make it slow to write and to open

# Distance of a number from the best, by `Output.best`; `clean` is the same number for clean data.
DISTANCES = {
    "lowest": lambda mean, clean: mean,
    "highest": lambda mean, clean: -mean,
    "one": lambda mean, clean: abs(mean - 1.0),
    "clean": lambda mean, clean: abs(mean - clean),
}

Named = tuple[str, str, Figure]  # file stem, caption, figure


def _bars(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[Named]:
    return [("ablation", "Mean and deviation of each run.", figures.bars(table, list(config.metrics)))]


def _grid(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[Named]:
    caption = "{}: a panel for each setting; red: the best of its own runs; grey: shared by all settings."
    return [
        (f"grid_{name}", caption.format(name), figures.grid(table, name, best_of(table, name)))
        for name in config.metrics
        if output_of(name).best
    ]


def _frontier(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[Named]:
    x, y = config.frontier
    return [("frontier", f"{y} against {x}.", figures.frontier(table, x, y))]


def _side_by_side(config: ml_collections.ConfigDict, table: Table, finished: Finished) -> list[Named]:
    return samples.side_by_side(config, table, samples.with_report(finished))


# Each kind of figure that a config's `figures` can name, from the config, the table and the folders of the finished runs.
FIGURES: dict[str, Callable[[ml_collections.ConfigDict, Table, Finished], list[Named]]] = {
    "bars": _bars,
    "grid": _grid,
    "frontier": _frontier,
    "curves": curves.figures,
    "side_by_side": _side_by_side,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses wrong figures and labels, before anything runs.

    Raises:
        UserError: no run or no seed, an unknown figure, a frontier without two metrics, side_by_side without a metric, or a
            label that is neither "member" nor "group/member".
    """
    if not config.runs or not config.seeds:
        raise UserError(
            f"the list {config.name!r} needs a run and a seed at least, it has {len(config.runs)} and {len(config.seeds)}"
        )
    for name in config.figures:
        find(FIGURES, name, "figures")
    if "frontier" in config.figures and len(config.frontier) != 2:
        raise UserError(f"config.frontier={tuple(config.frontier)}: set two metrics, of the x and of the y axis")
    if "side_by_side" in config.figures and not config.metrics:
        raise UserError("config.metrics=(): side_by_side shows the first metric as bars: set at least one")
    for label in config.runs:
        if label.count("/") > 1 or not all(label.split("/")):
            raise UserError(f"config.runs: the label {label!r} is neither 'member' nor 'group/member'")


def best_of(table: Table, metric: str) -> Callable[[dict[str, str]], str | None]:
    """Builds a function from member -> label to the best member by this metric; None if no value is better than another."""
    best = output_of(metric).best

    def distance(numbers):
        clean = numbers.get(f"{metric}_clean", Moments(0.0, 0.0, 0)).mean
        return DISTANCES[best](numbers[metric].mean, clean)

    def choose(labels):
        found = {member: distance(table[label]) for member, label in labels.items()} if best else {}
        found = {member: value for member, value in found.items() if np.isfinite(value)}
        return min(found, key=found.get) if len({*found.values()}) > 1 else None

    return choose


def _cell(found):
    is_alone = found.n == 1 and not found.std > 0.0
    return report.number(found.mean) if is_alone else f"{report.number(found.mean)} ± {found.std:.2g}"


def rows(config: ml_collections.ConfigDict, table: Table, paper: dict[str, dict[str, float]] | None = None) -> list[list[str]]:
    """Returns all runs by all metrics, heads first; several seeds give "mean ± standard deviation", one its own error.

    Args:
        config: names the metrics.
        table: of the runs.
        paper: label -> name -> number of the paper, which stand in columns of their own; None: there are none.
    """
    paper = paper or {}
    columns = [(name, kind) for name in config.metrics for kind in ("", " (paper)")]
    columns = [(name, kind) for name, kind in columns if not kind or any(name in numbers for numbers in paper.values())]
    found = [["run", "n", *(name + kind for name, kind in columns)]]
    for label, numbers in table.items():
        printed = {name: report.number(value) for name, value in paper.get(label, {}).items()}
        measured = {name: _cell(figures.with_own_error(numbers, name)) for name in numbers}
        cells = [(printed if kind else measured).get(name, "") for name, kind in columns]
        found.append([label, str(max(one.n for one in numbers.values())), *cells])
    return found


def for_page(table: Table, everything: list[list[str]]) -> list[list[str]]:
    """Returns `rows` as a page shows them: metrics below each other where there are more of them than of runs.

    The best run by a metric is bold then.
    """
    if len(everything[0]) <= len(everything) or not table:
        return everything
    heads, *turned = [list(column) for column in zip(*everything, strict=True)]
    labels = heads[1:]
    for row in turned:
        known = {label: label for label in labels if row[0] in table[label]}
        first = best_of(table, row[0])(known) if known else None
        row[1:] = [_bold(cell) if label == first else cell for label, cell in zip(labels, row[1:], strict=True)]
    return [["metric", *labels], *turned]


def compact(table: Table, metric: str, bold=lambda text: f"**{text}**") -> list[list[str]]:
    """Returns one metric, members by groups, heads first; the best of each group goes through `bold`. Empty without groups.

    Each group shows the runs that all share; they do not compete.
    """
    groups, members = figures.grouped(table)
    if "" in groups:
        return []
    found = [[metric, *groups], *([member] for member in members)]
    for group, labels in groups.items():
        cells = {
            member: figures.with_own_error(table[label], metric) for member, label in labels.items() if metric in table[label]
        }
        first = best_of(table, metric)(figures.rivals(table, metric, group, labels))
        for row, member in zip(found[1:], members, strict=True):
            text = _cell(cells[member]) if member in cells else ""
            row.append(bold(text) if member == first else text)
    return found


def comparison(table: Table, metric: str) -> str:
    """Returns a sentence on a metric of all runs, less that of clean data if this is the ideal; "" if no run has the metric."""
    known = {label: numbers for label, numbers in table.items() if metric in numbers}
    values, name = {label: numbers[metric].mean for label, numbers in known.items()}, metric
    clean = {numbers[f"{metric}_clean"].mean for numbers in known.values() if f"{metric}_clean" in numbers}
    ideal = output_of(metric).best == "clean" and len(clean) == 1
    if ideal:
        dirty = {numbers[f"{metric}_dirty"].mean for numbers in known.values() if f"{metric}_dirty" in numbers}
        values |= {"the training data": dirty.pop()} if len(dirty) == 1 else {}
        name = f"{metric.replace('_', ' ').capitalize()} above that of clean data ({min(clean):.2g})"
        values = {label: value - min(clean) for label, value in values.items()}
    shown = (f"{label} {number}" for label, number in zip(values, figures.formatted([*values.values()]), strict=True))
    return f"{name}: {', '.join(shown)}." if values else ""


def _bold(text):
    return markupsafe.Markup("<b>{}</b>").format(text)


def _markdown(table):
    return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], ["---"] * len(table[0]), *table[1:]]) + "\n"


def write(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    table: Table,
    finished: dict[str, list[pathlib.Path]],
    missing: list[str],
) -> pathlib.Path:
    """Writes table.md, plots/ and report.html under `folder`.

    Args:
        config: of `configs/ablations/`.
        folder: the list's workdir; plots/ is there.
        table: run -> metric -> `Moments` over seeds.
        finished: label -> folders of its finished runs; the images of the first are shown if there are at most MOST_DRAWN.
        missing: runs that are not finished.

    Returns:
        report.html.
    """
    configs = setups.configs(finished)
    paper = {label: published.paper_numbers(one) for label, one in configs.items()}
    everything = rows(config, table, paper)
    by_metric = [found for name in config.metrics if (found := compact(table, name))]
    (folder / "table.md").write_text("\n".join(map(_markdown, [everything, *by_metric])))
    plots = folder / "plots"
    folders = samples.with_report(finished)
    shown = {kind: _save(plots, FIGURES[kind](config, table, finished)) for kind in config.figures} if table else {}
    side_by_side = shown.pop("side_by_side", [])
    curved = shown.pop("curves", [])
    several = f"Means over seeds {', '.join(map(str, config.seeds))}, ± standard deviation."
    notes = [several if len(config.seeds) > 1 else "One seed; ± is the standard error that a measure states of itself."]
    notes += [f"The paper's numbers: {published.SOURCE}."] if any(paper.values()) else []
    joint = [compact(table, name, _bold) for name in config.metrics] if by_metric else []
    meaning = {name: output_of(name).meaning for name in config.metrics}
    sections = [
        *([report.Section("Side by side", comparison(table, config.metrics[0]), images=side_by_side)] if side_by_side else []),
        *(report.Section(found[0][0], text=meaning[found[0][0]], table=found) for found in joint),
        report.Section(
            "Results",
            text=" ".join(notes),
            table=for_page(table, everything),
            images=[one for images in shown.values() for one in images],
        ),
        *([report.Section("Curves", images=curved)] if curved else []),
        report.Section("Runs", table=[("run", "report of each seed"), *_links(folder, finished)]),
        *setups.sections(finished, configs),
        *(samples.sections(plots, folders) if len(folders) <= MOST_DRAWN else []),
        report.Section("Meaning of the names", table=[("name", "meaning"), *meaning.items()]),
        report.Section(setups.SHARED, pre=json.dumps(setups.shared(configs) or setups.nested(config.base), indent=2)),
    ]
    summary = config.summary + (f" Not finished yet: {', '.join(missing)}." if missing else "")
    report.write_report(folder / "report.html", config.name, summary, sections, setups.facts(finished))
    return folder / "report.html"


def _save(plots, found):
    for stem, _, figure in found:
        figure.savefig(plots / f"{stem}.png")
    return [report.image(plots / f"{stem}.png", caption, wide=True) for stem, caption, _ in found]


def _links(folder, finished):
    """Lists each label with links to its runs' reports, relative to the joint report; a run without a report has no link."""
    link = markupsafe.Markup('<a href="{}">{}</a>')
    for label, paths in finished.items():
        links = []
        for path in paths:
            target = urllib.parse.quote(pathlib.Path(os.path.relpath(path / "report.html", folder)).as_posix())
            links.append(link.format(target, path.name) if (path / "report.html").exists() else path.name)
        yield label, markupsafe.Markup(" ").join(links)
