"""`--mode=compare`: one report of finished runs that stand in any folders, if their numbers can be compared.

Training sets, objectives, networks and samplers may differ. What a number is measured against may not: the clean data, and
how many samples are judged how.
"""

import json
import pathlib
from collections.abc import Sequence

import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.registry import lookup, nearest
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import fingerprint
from advdiff_jax.errors import UserError
from advdiff_jax.sweep import report, setups
from advdiff_jax.sweep.curves import Finished
from advdiff_jax.sweep.figures import moments
from advdiff_jax.training import parallel

# Keys of `evaluation` that change no number, and those that only choose which numbers there are, or of which samples.
HARMLESS = {
    *("metrics", "diagnostics", "samples", "seed", "grid", "cache_dir", "field_levels"),
    *("features_batch", "bootstrap", "overfitting_ratio"),
}
COSTS = ("network_evaluations", "train_seconds")  # of those that rank no run, these stand in the table


@parallel.on_first_process
def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder`/compare: report.html, table.md, results.json and plots/ of the runs in `config.compare.runs`.

    Raises:
        UserError: fewer than two runs, a folder without a finished run, or runs that are not comparable.
    """
    finished = named(parse(config.compare.runs))
    check_comparable(finished)
    summary = f"{len(finished)} runs, measured against the same clean data: {', '.join(finished)}."
    return join(finished, folder / "compare", "Comparison of runs", summary, tuple(config.compare.metrics))


def join(
    finished: Finished,
    out: pathlib.Path,
    title: str,
    summary: str,
    metrics: tuple[str, ...] = (),
    missing: Sequence[str] = (),
) -> pathlib.Path:
    """Writes report.html, table.md, results.json and plots/ of finished runs, or of what a mode wrote about them, to `out`.

    Args:
        finished: label -> the folders of its seeds.
        out: folder, created.
        title: of the page.
        summary: its first line.
        metrics: columns of the table; (): all numbers that rank a run, and costs.
        missing: runs that are named as not finished.

    Returns:
        the page.

    Raises:
        UserError: no run has one of `metrics`.
    """
    results = {label: [workdir.read_results(one / "results.json") for one in folders] for label, folders in finished.items()}
    table = {label: moments(found) for label, found in results.items()}
    described = _as_list(setups.configs(finished), table, finished, metrics)
    described.name, described.summary = title, summary
    (out / "plots").mkdir(parents=True, exist_ok=True)
    means = {f"{label}/{name}": value.mean for label, numbers in table.items() for name, value in numbers.items()}
    workdir.write_json(out / "results.json", means)
    return report.write(described, out, table, finished, [*missing])


def parse(text: str) -> list[pathlib.Path]:
    """Reads folders between commas; a folder's own name may have commas, as those of `evaluations/` do.

    Raises:
        UserError: there is no run, or a part names no folder of a finished run.
    """
    parts, found = [part.strip() for part in text.split(",") if part.strip()], []
    while parts:
        names = {n: pathlib.Path(",".join(parts[:n])).expanduser() for n in range(len(parts), 0, -1)}
        taken = next((n for n, path in names.items() if _seeds(path)), None)
        if taken is None:
            raise UserError(
                f"config.compare.runs: {parts[0]!r} holds no finished run (results.json and config.json, in it or in its "
                "seed_0, seed_1, ...): train it first, or name another folder"
            )
        found.append(names[taken].absolute())
        parts = parts[taken:]
    if len(found) < 2:
        raise UserError(f"config.compare.runs={text!r}: name two runs at least, as FOLDER,FOLDER")
    return found


def _seeds(path):
    """Returns the finished runs of a folder: itself, or those of its seeds."""
    folders = [path, *sorted(path.glob("seed_*"))]
    return [one for one in folders if (one / "results.json").is_file() and (one / "config.json").is_file()]


def named(paths: list[pathlib.Path]) -> Finished:
    """Returns label -> folders of its seeds; a label has as many parts of the path as set it apart from the others.

    Raises:
        UserError: a folder is named twice.
    """
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"config.compare.runs names {twice} twice: name each run once")
    longest = max(len(path.parts) for path in paths)
    tails = ([_tail(path, count).replace(".", " ") for path in paths] for count in range(1, longest + 1))  # without dots
    numbered = [f"run {i}" for i in range(len(paths))]  # of paths that differ in dots alone
    labels = next((found for found in tails if len({*found}) == len(found)), numbered)
    return {label: _seeds(path) for label, path in zip(labels, paths, strict=True)}


def _tail(path, count):
    """Returns the last parts of a path; a seed's folder is named with that above, an evaluation with its run."""
    if path.parent.name == "evaluations":
        return f"{_tail(path.parent.parent, count)}, {path.name}"
    return " ".join(path.parts[-(count + path.name.startswith("seed_")) :])


def check_comparable(finished: Finished) -> None:
    """Raises UserError where the numbers of two runs are measured against other data, or in another way."""
    first, *others = [folder for folders in finished.values() for folder in folders]
    mine = _Judged(first)
    for other in others:
        theirs = _Judged(other)
        differing = [key for key in sorted(mine.keys & theirs.keys) if mine.flat.get(key) != theirs.flat.get(key)]
        said = [f"{key} is {mine.flat.get(key)!r} and {theirs.flat.get(key)!r}" for key in differing]
        if not said and mine.flat.get("data.seed") == theirs.flat.get("data.seed"):
            said = [changed] if (changed := _other_data(first, other)) else []
        if said:
            raise UserError(
                f"{first} and {other} are not comparable ({', '.join(said)}): leave one of them out, or evaluate one again "
                "with the other's values"
            )


class _Judged:
    """What the numbers of a run depend on besides its model."""

    def __init__(self, folder):
        self.flat = workdir.read_config(folder / "config.json")
        source = lookup(SOURCES, setups.unflatten(self.flat), "data.source")
        sections = {*workdir.EVALUATION_SECTIONS} - {"sampling"}
        evaluation = {key for key in self.flat if key.split(".")[0] in sections and key.split(".")[1] not in HARMLESS}
        self.keys = {"data.source", *source.reads, *evaluation} - {*workdir.HOST_KEYS}


def _other_data(first, second):
    files = [_run_of(folder) / "data.json" for folder in (first, second)]
    if not all(file.exists() for file in files):
        return ""
    return fingerprint.difference(*(json.loads(file.read_text()) for file in files))


def _run_of(folder):
    """Returns the run of a folder of results: itself, or the nearest above that has a fingerprint of its data."""
    return next((one for one in (folder, *folder.parents[:3]) if (one / "data.json").exists()), folder)


def _as_list(found, table, finished, metrics):
    """Describes the runs as `configs.ablations.common.list_of_runs` describes a list, for its report."""
    first = next(iter(found.values()))
    names = list(dict.fromkeys(name for numbers in table.values() for name in numbers))
    wanted = metrics or tuple(name for name in names if _ranks(name))
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(
            f"config.compare.metrics: no run has {unknown[0]!r}{nearest(unknown[0], names)}: set some of {', '.join(names)}"
        )
    described = ml_collections.ConfigDict()
    described.base = first
    described.metrics = wanted
    seeds = (workdir.read_config(one / "config.json").get("seed", 0) for folders in finished.values() for one in folders)
    described.seeds = tuple(sorted({*seeds}))
    has_images = all((folders[0] / "plots" / "data.npz").exists() for folders in finished.values())
    described.figures = (*(("side_by_side",) if has_images else ()), "bars", "curves")
    described.runs = {label: {"sampling": {"seed": one.sampling.seed}} for label, one in found.items()}
    return described


def _ranks(name):
    known = output_of(name)
    return name in COSTS or (known.meaning and known.best is not None) or name.endswith(("_clean", "_dirty"))
