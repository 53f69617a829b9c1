"""Many runs from one config file: a list of (label, overrides) x seeds, then one table and one figure for all.

Each run has its own folder, workdir/LABEL/seed_K; a finished one is skipped, an unfinished one resumed. A label may be
"group/member": a group is a setting (a panel, a column) or a series, and a run without one is shared by all of them.
"""

import copy
import difflib
import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import ablation_report, builders, builders_objectives, overrides, transfer_mode, workdir
from advdiff_jax.errors import UserError
from advdiff_jax.run import DATA_MODES, run

log = logging.getLogger(__name__)

# Modes that show a list of runs as one.
JOINT_MODES = {"transfer": transfer_mode.transfer_of_many}


def default_workdir(config: ml_collections.ConfigDict) -> pathlib.Path:
    """runs/NAME-VARIANT, or runs/NAME for an ablation."""
    return pathlib.Path("runs") / (config.name if "runs" in config else f"{config.name}-{config.variant}")


def labels(config: ml_collections.ConfigDict) -> list[str]:
    """The labels of the runs, in the order in which they were given."""
    order = [label for label in config.order if label in config.runs]
    return order + [label for label in config.runs if label not in order]


def expand(config: ml_collections.ConfigDict) -> list[tuple[str, int, ml_collections.ConfigDict]]:
    """The (label, seed, config) of every run: the base config, its overrides, and the seed, in this order.

    Raises:
        UserError: an override names a key that the base does not have, or that the run would not read; or see
            `ablation_report.check`.
    """
    ablation_report.check(config)
    runs, known = [], workdir.flatten(config.base)
    for label in labels(config):
        settings = workdir.flatten(config.variants[label])
        given = [key for key, value in workdir.flatten(config.runs[label]).items() if settings.get(key) != value]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise UserError(f"config.runs.{label}: there is no key {key}" + (f"; did you mean {near[0]}?" if near else ""))
        for seed in config.seeds:
            one = copy.deepcopy(config.base).lock()  # locked: an unknown key is an error
            try:
                one.update(config.runs[label])
                overrides.check(one, given)
            except (TypeError, UserError) as error:
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
    if mode == "train":  # what the last run is refused for should not be told after the others
        for label, _, one in runs[:: len(config.seeds)]:
            try:
                builders.check(builders_objectives.budgeted(one))
            except UserError as error:
                raise UserError(f"config.runs.{label}: {error}") from error
    opened = folder
    for label, seed, one in runs[index::count]:
        log.info("%s: %s, seed %d", config.name, label, seed)
        opened = run(one, _run_folder(folder, label, seed), mode)
        # Compiled code maps memory, of which a process may have so many pieces: without this some hundred runs are the end.
        jax.clear_caches()
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
    """Joins the finished runs, from their results.json: results.json, table.md, plots/ and report.html under `folder`."""
    found: dict[str, list[dict[str, float]]] = {label: [] for label in labels(config)}
    missing = []
    for label in found:
        for seed in config.seeds:
            path = _run_folder(folder, label, seed) / "results.json"
            if path.exists():
                found[label].append(json.loads(path.read_text()))
            else:
                missing.append(f"{label}/seed_{seed}")
    table = {label: _moments(results) for label, results in found.items() if results}
    for name in config.metrics:
        if table and not missing and not any(name in metrics for metrics in table.values()):
            there = dict.fromkeys(name for metrics in table.values() for name in metrics)
            log.warning("config.metrics: no run has %r: choose among %s", name, ", ".join(there))
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    workdir.write_json(
        folder / "results.json",
        {f"{label}/{name}": mean for label, metrics in table.items() for name, (mean, _) in metrics.items()},
    )
    folders = {label: _run_folder(folder, label, config.seeds[0]) for label in found}
    folders = {label: path for label, path in folders.items() if (path / "report.html").exists()}
    return ablation_report.write(config, folder, table, folders, missing)


def _moments(results):
    names = {name: None for result in results for name in result}
    values = {name: [result[name] for result in results if name in result] for name in names}
    return {name: (float(np.mean(drawn)), float(np.std(drawn))) for name, drawn in values.items()}
