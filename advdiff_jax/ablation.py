"""Many runs from one config file: a list of (label, overrides) x seeds, then one table and one figure for all.

Each run has its own folder, workdir/LABEL/seed_K; a finished one is skipped, an unfinished one resumed.
"""

import copy
import json
import logging
import pathlib

import ml_collections
import numpy as np

from advdiff_jax import transfer_mode, workdir
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import fields, pictures, report
from advdiff_jax.run import DATA_MODES, run

log = logging.getLogger(__name__)

# Modes that show a list of runs as one.
JOINT_MODES = {"transfer": transfer_mode.transfer_of_many}

Table = dict[str, dict[str, tuple[float, float]]]


def default_workdir(config: ml_collections.ConfigDict) -> pathlib.Path:
    """runs/NAME-VARIANT, or runs/NAME for an ablation."""
    return pathlib.Path("runs") / (config.name if "runs" in config else f"{config.name}-{config.variant}")


def expand(config: ml_collections.ConfigDict) -> list[tuple[str, int, ml_collections.ConfigDict]]:
    """The (label, seed, config) of every run: the base config, its overrides, and the seed, in this order.

    Raises:
        UserError: an override names a key that the base does not have.
    """
    runs = []
    for label, overrides in config.runs.items():
        for seed in config.seeds:
            one = copy.deepcopy(config.base).lock()  # locked: an unknown key is an error
            try:
                one.update(overrides)
            except (KeyError, AttributeError, TypeError) as error:
                raise UserError(f"config.runs.{label}: {' '.join(str(error).split())}") from error
            one.seed = seed
            runs.append((label, seed, one))
    return runs


def run_all(config: ml_collections.ConfigDict, folder: pathlib.Path, mode: str, shard: str) -> pathlib.Path:
    """Does every run of the list that belongs to this shard, then writes table, figure and report over all that is there.

    Args:
        config: a config of `configs/ablations/`: `name`, `base`, `runs`, `seeds`, `metrics`.
        folder: the ablation's workdir.
        mode: as for `run.run`.
        shard: "i/n".

    Returns:
        the joint report.

    Raises:
        UserError: a bad shard, or whatever a run raises.
    """
    index, count = _parse_shard(shard)
    runs = expand(config)
    if mode in JOINT_MODES:
        return JOINT_MODES[mode](runs, folder, config.name)
    for label, seed, one in runs[index::count]:
        log.info("%s: %s, seed %d", config.name, label, seed)
        opened = run(one, _run_folder(folder, label, seed), mode)
    if mode in DATA_MODES:
        return opened
    return summarise(config, folder)


def _run_folder(folder, label, seed):
    return folder / label / f"seed_{seed}"


def _parse_shard(shard):
    index, slash, count = shard.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard={shard}: give i/n with 0 <= i < n, for example 0/4")
    return int(index), int(count)


def summarise(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Joins the finished runs: results.json, table.md, plots/ablation.png and report.html under `folder`."""
    found: dict[str, list[dict[str, float]]] = {label: [] for label in config.runs}
    missing = []
    for label, seed, _ in expand(config):
        path = _run_folder(folder, label, seed) / "results.json"
        if path.exists():
            found[label].append(json.loads(path.read_text()))
        else:
            missing.append(f"{label}/seed_{seed}")
    table: Table = {
        label: {
            name: (float(np.mean(values)), float(np.std(values)))
            for name in results[0]
            if (values := [result[name] for result in results if name in result])
        }
        for label, results in found.items()
        if results
    }
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    workdir.write_json(
        folder / "results.json",
        {f"{label}/{name}": mean for label, metrics in table.items() for name, (mean, _) in metrics.items()},
    )
    rows = _rows(config, table)
    (folder / "table.md").write_text(
        "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]) + "\n"
    )
    pictures.bars(table, list(config.metrics)).savefig(plots / "ablation.png")
    return _write_report(config, folder, rows, missing)


def _rows(config, table):
    def cell(mean_std):
        mean, std = mean_std
        return report.number(mean) if len(config.seeds) == 1 else f"{report.number(mean)} ± {std:.2g}"

    rows = [["run", *config.metrics]]
    for label, metrics in table.items():
        rows.append([label, *(cell(metrics[name]) if name in metrics else "" for name in config.metrics)])
    return rows


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


def _write_report(config, folder, rows, missing):
    seed = config.seeds[0]
    folders = {label: _run_folder(folder, label, seed) for label in config.runs}
    folders = {label: path for label, path in folders.items() if (path / "report.html").exists()}
    panels = _panels(folders)
    pictures.strip(panels).savefig(folder / "plots" / "samples.png")
    grids = [report.picture(path, caption) for caption, path in panels]
    drawn = _draw_fields(folder / "plots", folders)
    seeds = f"Means over seeds {', '.join(map(str, config.seeds))}, ± standard deviation." if len(config.seeds) > 1 else ""
    meanings = [(name, report.MEANING.get(name, "")) for name in config.metrics]
    sections = [
        report.Section("Data and samples", pictures=grids),
        report.Section(
            "Results",
            text=seeds,
            table=rows,
            pictures=[report.picture(folder / "plots" / "ablation.png", "The same as a figure.", wide=True)],
        ),
        *([report.Section("The score and its paths", pictures=drawn)] if drawn else []),
        report.Section("What the names mean", table=[("name", "meaning"), *meanings]),
        report.Section("Runs", text=f"Each has its own report: {folder}/RUN/seed_K/report.html, RUN as in the table."),
        report.Section("Set-up of the base", pre=json.dumps(json.loads(config.base.to_json_best_effort()), indent=2)),
    ]
    summary = config.summary + (f" Not finished yet: {', '.join(missing)}." if missing else "")
    report.write_report(folder / "report.html", config.name, summary, sections)
    return folder / "report.html"


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
