"""A list of runs: (label, overrides) x seeds, then one table and one figure for all.

Each run has its own folder, workdir/LABEL/seed_K; a finished run is skipped, an unfinished one resumed. A label may be
"group/member": a group is a setting (a panel, a column) or a series, and a run without one is shared by all of them.
"""

import copy
import logging
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import ml_collections

from advdiff_jax import modes, workdir
from advdiff_jax.builders.registry import nearest
from advdiff_jax.builders.validate import read_keys, resolve
from advdiff_jax.errors import UserError
from advdiff_jax.sweep import compare, report
from advdiff_jax.sweep.figures import moments
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


DRAWING = ("train", "evaluate", "sample")  # modes that draw samples; in others an evaluation has nothing to do
JUDGING = ("sampling", "evaluation")  # sections that a mode which judges a run may read, besides its own
MEASURED = ("sampling.final_denoise", "sampling.final_own")  # of these the judged folder keeps what the run has measured


class Run(NamedTuple):
    """A run of a list, with its resolved config.

    Attributes:
        label: names it.
        seed: of the list's seeds.
        config: resolved.
        of: label of the run that it evaluates under other settings; "": it trains.
    """

    label: str
    seed: int
    config: ml_collections.ConfigDict
    of: str = ""

    def folder(self, workdir: pathlib.Path) -> pathlib.Path:
        """Returns the run's own workdir under that of the list; an evaluation has that of its run."""
        return workdir / (self.of or self.label) / f"seed_{self.seed}"

    def results(self, folder: pathlib.Path) -> pathlib.Path:
        """Returns where its results are, under the list's workdir."""
        path = self.folder(folder)
        if not self.of or not (path / "config.json").exists():
            return path
        return workdir.evaluation_folder(workdir.flatten(self.config), workdir.read_config(path / "config.json"), path)


def labels(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the labels of the runs, in the order in which they were given."""
    order = [label for label in config.order if label in config.runs]
    return order + [label for label in config.runs if label not in order]


def expand(config: ml_collections.ConfigDict, mode: str = "train", overrides: Iterable[str] = ()) -> list[Run]:
    """Builds every run: the base config, the run's overrides, and the seed, in this order.

    Args:
        config: a config of `configs/ablations/`.
        mode: a name of `modes.MODES`.
        overrides: keys of `config` that the user gave; what stands under `base` must be read by a run.

    Raises:
        UserError: an override names a key that the base does not have, or a config that `resolve` refuses; or see
            `report.check`.
    """
    report.check(config)
    runs = [run for label in labels(config) for run in _of_label(config, label, mode)]
    given = {key for key in overrides if key.startswith("base.")}
    read = {f"base.{key}" for run in runs for key in read_keys(run.config, modes.MODES, mode)} if given else set()
    if unread := sorted(given - read):
        raise UserError(f"config.{unread[0]} would not be read by any run of the list {config.name!r}: leave it out")
    return runs


def _of_label(config, label, mode):
    known, settings = workdir.flatten(config.base), workdir.flatten(config.variants[label])
    given = [key for key, value in workdir.flatten(config.runs[label]).items() if settings.get(key) != value]
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"config.runs.{label}: there is no key {unknown[0]}{nearest(unknown[0], known)}")
    runs = []
    for seed in config.seeds:
        one = copy.deepcopy(config.base)
        try:
            one.update(config.runs[label])
            one.seed = seed  # the seeds of data, sampling and evaluation follow, unless base or run sets them
            runs.append(Run(label, seed, resolve(one, given, modes.MODES, mode), config.evaluations.get(label, "")))
        except (TypeError, UserError) as error:  # ml_collections raises TypeError for a value of another type
            raise UserError(f"config.runs.{label}: {' '.join(str(error).split())}") from error
    return runs


def run_all(
    config: ml_collections.ConfigDict, folder: pathlib.Path, mode: str, shard: str, overrides: Iterable[str] = ()
) -> pathlib.Path:
    """Does every run of the list that belongs to this shard, then writes table, figure and report over all finished runs.

    A mode that judges a run has a page of its own for all of them, `folder`/MODE, over those that it has judged so far; it
    skips those that it has judged under the same keys of sampling, evaluation and its own.

    Args:
        config: a config of `configs/ablations/`: `name`, `base`, `runs`, `seeds`, `metrics`.
        folder: the list's workdir.
        mode: a name of `modes.MODES`.
        shard: "i/n".
        overrides: as for `expand`.

    Returns:
        the joint report.

    Raises:
        UserError: a bad shard, or whatever a run raises; every config is checked before the first run.
    """
    index, count = _parse_shard(shard)
    runs = expand(config, mode, overrides)
    own = [one for one in runs if not one.of]
    if modes.MODES[mode].joint:
        return modes.load_joint(mode)(own, folder, config.name)
    opened = folder
    for one in own[index::count]:
        again = [two for two in runs if (two.of, two.seed) == (one.label, one.seed)]
        for chosen in [one, *(again if mode in DRAWING else [])]:
            opened = _do(config.name, chosen, folder, mode)
    if modes.MODES[mode].judges:
        return parallel.on_first_process(_join)(config, own, folder, mode)
    if modes.MODES[mode].output:
        return opened
    return parallel.on_first_process(summarise)(config, runs, folder)


def _do(name, run, folder, mode):
    """Does a run in a mode, or evaluates its run once more; returns what to open."""
    log.info("%s: %s, seed %d", name, run.label, run.seed)
    if run.of and mode == "train":
        if (run.results(folder) / "results.json").exists():
            log.info("%s: already evaluated; --mode=evaluate evaluates it again", run.label)
            return run.results(folder) / "report.html"
        mode = "evaluate"
    if modes.MODES[mode].judges and (judged := _judged(run, folder, mode)):
        log.info("%s: already judged with these settings; delete %s to do it again", run.label, judged)
        return judged / "report.html"
    opened = modes.load(mode)(run.config, run.folder(folder))
    jax.clear_caches()  # each compiled program holds memory mappings, and the process limit is finite
    return opened


def _judged(run, folder, mode):
    """Returns where the mode has judged the run as its config says; None: nowhere."""
    mine, path = workdir.flatten(run.config), run.folder(folder)
    sections = {*JUDGING, *(key.split(".")[0] for key in modes.MODES[mode].reads)}
    keys = {key for key in mine if key.split(".")[0] in sections} - {*workdir.HOST_KEYS, *MEASURED}
    for results in (*path.glob(f"{mode}/**/results.json"), *path.glob(f"evaluations/*/{mode}/**/results.json")):
        theirs = results.with_name("config.json")
        theirs = workdir.read_config(theirs) if theirs.exists() else {}
        if all(theirs.get(key) == mine[key] for key in {*keys, "train.steps"}):
            return results.parent
    return None


def _join(config, runs, folder, mode):
    """Joins what a mode has written about the runs, as the list's config says; returns the page."""
    found: dict[str, list[pathlib.Path]] = {}
    missing, name = [], None
    for run in runs:
        if path := _judged(run, folder, mode):
            name = name or path.relative_to(run.folder(folder))
            found.setdefault(run.label, []).append(path)
        else:
            missing.append(f"{run.label}/seed_{run.seed}")
    if not found:
        raise UserError(f"no run of the list {config.name!r} is judged yet, and this shard has none: run another shard first")
    return compare.join(found, folder / name, f"{config.name}: {mode}", config.summary, missing=missing)


def _parse_shard(shard):
    index, slash, count = shard.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard={shard}: give i/n with 0 <= i < n, for example 0/4")
    return int(index), int(count)


def summarise(config: ml_collections.ConfigDict, runs: list[Run], folder: pathlib.Path) -> pathlib.Path:
    """Joins the finished runs, from their results.json: results.json, table.md, plots/ and report.html under `folder`."""
    results: dict[str, list[dict[str, float]]] = {run.label: [] for run in runs}
    finished, missing = {}, []
    for run in runs:
        path = run.results(folder)
        if (path / "results.json").exists() and (not run.of or path != run.folder(folder)):
            results[run.label].append(workdir.read_results(path / "results.json"))
            finished.setdefault(run.label, []).append(path)
        else:
            missing.append(f"{run.label}/seed_{run.seed}")
    table = {label: moments(found) for label, found in results.items() if found}
    for name in config.metrics:
        if table and not missing and not any(name in metrics for metrics in table.values()):
            known = list(dict.fromkeys(name for metrics in table.values() for name in metrics))
            log.warning("config.metrics: no run has %r%s: set some of %s", name, nearest(name, known), ", ".join(known))
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    means = {f"{label}/{name}": found.mean for label, metrics in table.items() for name, found in metrics.items()}
    workdir.write_json(folder / "results.json", means)
    return report.write(config, folder, table, finished, missing)
