"""The joint report of a list of runs: tables, figures, and (of short lists) pictures of what the runs draw."""

import json
import pathlib
import re
from collections.abc import Callable

import markupsafe
import ml_collections
import numpy as np

from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import ablation_figures, fields, pictures, report
from advdiff_jax.evaluation.ablation_figures import Table

MOST_DRAWN = 16  # runs up to which the report shows samples and fields; with more it would be slow to make and to open

# Where the lowest value is not the best: mean -> what should be low.
RANKINGS = {
    **dict.fromkeys(("spread_ratio", "gain_largest"), lambda mean: abs(mean - 1.0)),
    **dict.fromkeys(("precision", "recall", "inception_score", "subspace_psnr", "nn_distance_ratio"), lambda mean: -mean),
}
LIKE_CLEAN = ("noise_energy",)  # best nearest to the clean data's, METRIC_clean: below it, signal is missing
# No value is better than another: what is given or is a cost, what belongs to the data, what a diagnosis tells.
UNRANKED = re.compile(
    "w2_floor|network_evaluations|flops_per_step|steps_per_second|train_seconds|noise_level|gain_smallest|"
    ".*_clean|.*_dirty|inner_.*"
)

# (file stem, caption, figure) of each kind of figure that a config's `figures` can name.
FIGURES = {
    "bars": lambda config, table: [("ablation", "The same as a figure.", pictures.bars(table, list(config.metrics)))],
    "grid": lambda config, table: [
        (
            f"grid_{name}",
            f"{name}: a panel a setting; red: the best of its own runs; grey: shared by all.",
            ablation_figures.grid(table, name, best_of(table, name)),
        )
        for name in config.metrics
        if not UNRANKED.fullmatch(name)
    ],
    "frontier": lambda config, table: [
        ("frontier", f"{y} against {x}.", ablation_figures.frontier(table, x, y)) for x, y in [config.frontier]
    ],
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses figures and labels that cannot be, before anything is run.

    Raises:
        UserError: no run or no seed, an unknown figure, a frontier without its two metrics, or a label that is not "member" or
            "group/member".
    """
    if not config.runs or not config.seeds:
        raise UserError(
            f"the list {config.name!r} needs a run and a seed at least, it has {len(config.runs)} and {len(config.seeds)}"
        )
    for name in config.figures:
        if name not in FIGURES:
            raise UserError(f"config.figures: {name!r} is not known: choose among {', '.join(FIGURES)}")
    if "frontier" in config.figures and len(config.frontier) != 2:
        raise UserError(f"config.frontier={tuple(config.frontier)}: a frontier needs two metrics, of the x and of the y axis")
    for label in config.runs:
        if label.count("/") > 1 or not all(label.split("/")):
            raise UserError(f"config.runs: the label {label!r} is neither 'member' nor 'group/member'")


def best_of(table: Table, metric: str) -> Callable[[dict[str, str]], str | None]:
    """labels by member -> the best of them by this metric; None where nothing is better than the rest."""

    def distance(metrics):
        mean = metrics[metric][0]
        if metric in LIKE_CLEAN:
            return abs(mean - metrics.get(f"{metric}_clean", (0.0,))[0])
        return RANKINGS.get(metric, float)(mean)

    def best(labels):
        found = {member: distance(table[label]) for member, label in labels.items()}
        found = {member: value for member, value in found.items() if np.isfinite(value)}
        ranked = len({*found.values()}) > 1 and not UNRANKED.fullmatch(metric)
        return min(found, key=found.get) if ranked else None

    return best


def _cell(config, mean, std):
    return report.number(mean) if len(config.seeds) == 1 else f"{report.number(mean)} ± {std:.2g}"


def rows(config: ml_collections.ConfigDict, table: Table) -> list[list[str]]:
    """All runs by all metrics, heads first; "mean ± standard deviation" where there are seeds."""
    found = [["run", *config.metrics]]
    for label, metrics in table.items():
        found.append([label, *(_cell(config, *metrics[name]) if name in metrics else "" for name in config.metrics)])
    return found


def compact(config: ml_collections.ConfigDict, table: Table, metric: str, bold=lambda text: f"**{text}**") -> list[list[str]]:
    """One metric, members by groups, heads first; the best of each group goes through `bold`. Empty without groups.

    Runs that the groups share are shown in each of them, and are no rivals.
    """
    groups, members = ablation_figures.grouped(table)
    if "" in groups:
        return []
    found = [[metric, *groups], *([member] for member in members)]
    for group, labels in groups.items():
        cells = {member: table[label][metric] for member, label in labels.items() if metric in table[label]}
        first = best_of(table, metric)(ablation_figures.rivals(table, metric, group, labels))
        for row, member in zip(found[1:], members, strict=True):
            text = _cell(config, *cells[member]) if member in cells else ""
            row.append(bold(text) if member == first else text)
    return found


def _bold(text):
    return markupsafe.Markup("<b>{}</b>").format(text)


def _markdown(table):
    return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], ["---"] * len(table[0]), *table[1:]]) + "\n"


def write(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    table: Table,
    folders: dict[str, pathlib.Path],
    missing: list[str],
) -> pathlib.Path:
    """Writes table.md, plots/ and report.html under `folder`.

    Args:
        config: of `configs/ablations/`.
        folder: the ablation's workdir; plots/ is there.
        table: run -> metric -> (mean, standard deviation over seeds).
        folders: label -> folder of one finished run, whose pictures are shown if there are at most MOST_DRAWN.
        missing: runs that are not finished.

    Returns:
        report.html.
    """
    everything = rows(config, table)
    by_metric = [found for name in config.metrics if (found := compact(config, table, name))]
    (folder / "table.md").write_text("\n".join(map(_markdown, [everything, *by_metric])))
    plots, shown = folder / "plots", []
    for kind in config.figures if table else ():
        for stem, caption, figure in FIGURES[kind](config, table):
            figure.savefig(plots / f"{stem}.png")
            shown.append(report.picture(plots / f"{stem}.png", caption, wide=True))
    seeds = f"Means over seeds {', '.join(map(str, config.seeds))}, ± standard deviation." if len(config.seeds) > 1 else ""
    joint = [compact(config, table, name, _bold) for name in config.metrics] if by_metric else []
    meanings = [(name, report.MEANING.get(name, "")) for name in config.metrics]
    sections = [
        *(_drawn(plots, folders) if len(folders) <= MOST_DRAWN else []),
        *(report.Section(found[0][0], text=report.MEANING.get(found[0][0], ""), table=found) for found in joint),
        report.Section("Results", text=seeds, table=everything, pictures=shown),
        report.Section("What the names mean", table=[("name", "meaning"), *meanings]),
        report.Section("Runs", text=f"Each has its own report: {folder}/RUN/seed_K/report.html, RUN as in the table."),
        report.Section("Set-up of the base", pre=json.dumps(json.loads(config.base.to_json_best_effort()), indent=2)),
    ]
    summary = config.summary + (f" Not finished yet: {', '.join(missing)}." if missing else "")
    report.write_report(folder / "report.html", config.name, summary, sections)
    return folder / "report.html"


def _drawn(plots, folders):
    """Samples of each run, and its fields where they can be drawn."""
    panels = _panels(folders)
    if not panels:
        return []
    pictures.strip(panels).savefig(plots / "samples.png")
    sections = [report.Section("Data and samples", pictures=[report.picture(path, caption) for caption, path in panels])]
    found = _draw_fields(plots, folders)
    return sections + ([report.Section("The score and its paths", pictures=found)] if found else [])


def _panels(folders):
    """(caption, PNG) of the data and of each run's samples; data that runs share are shown once, before the first of them."""
    panels, shown = [], set()
    for label, path in folders.items():
        dirty = path / "plots" / "data_dirty.png"
        if dirty.read_bytes() not in shown:
            shown.add(dirty.read_bytes())
            panels += [("trained on", dirty), ("clean, never seen", path / "plots" / "data_clean.png")]
        last = max((path / "samples").glob("step_*.png"), key=lambda file: int(file.stem.split("_")[1]))
        panels.append((f"samples: {label}", last))
    return panels


def _draw_fields(plots, folders):
    """Score fields (at the lowest noise, where runs differ most) and paths of all runs beside the truth, for points."""
    stored = {label: path / "plots" / "fields.npz" for label, path in folders.items()}
    stored = {label: path for label, path in stored.items() if path.exists()}
    if not stored:
        return []
    exact = next(iter(stored.values())).with_name("fields_exact.npz")
    found = {"exact": fields.load(exact)} | {label: fields.load(path) for label, path in stored.items()}
    level = int(np.argmin(found["exact"].field.levels))
    u, names = found["exact"].field.levels[level], found["exact"].names
    panels = [(label, one.field, level) for label, one in found.items()]
    pictures.score_fields(panels, names, columns=4).savefig(plots / "score_fields.png")
    half_side = float(found["exact"].field.points.max())
    paths = [(label, one.paths) for label, one in found.items()]
    pictures.trajectories(paths, names, 4, half_side).savefig(plots / "trajectories.png")
    return [
        report.picture(plots / "score_fields.png", f"The score at sigma/alpha = {u:g}, exact and as each run has it.", True),
        report.picture(plots / "trajectories.png", "Paths of the probability-flow ODE from the same starts.", True),
    ]
