"""The folder of a run: created for a config, and checked against it when the run goes on or is evaluated."""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import platform
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections

from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

SCHEMA = 3  # version of config.json: 1 has no `schema`, and the old names below; up to 2 0 was what "learnt" is today

# Names of earlier versions, by what they are called now: keys, sections, values of a key, and prefixes in results.json.
OLD_KEYS = {
    "robust.lazy_interval": "robust.every",
    "robust.group_size": "robust.one_in",
    "data.on_bad_image": "data.on_bad_picture",
    "data.subspace_distribution": "data.subspace_law",
    "evaluation.diagnostics": "evaluation.looks",
}
OLD_SECTIONS = {"baselines": "neighbours"}
OLD_VALUES = {
    "evaluation.diagnostics": {"transfer": "gain", "inner": "overfitting"},
    "robust.maximize": {"violation": "residual"},
    "data.source": {"stored": "record_dataset"},
}
OLD_RESULTS = {"overfitting_": "inner_"}

# Objectives that learn by level: what their runs did before they had a choice, and what 0 meant to them.
BY_LEVEL = ("ambient_blind", "ambient_equivariance")
BEFORE_KEYS = {"noise.without_clean": "lowest"}
LEARNT = {"sampling.final_denoise": "learnt"}

# Sections in which an evaluation may differ from its run: how samples are drawn, and how they and the model are judged.
EVALUATION_SECTIONS = ("sampling", "evaluation", "classifier", "purify", "certify", "anomaly")

# Sections that no run reads, but a mode that shows data or finished runs.
OF_A_MODE = ("poison.", "compare.", "restore.", "noise.atypical_share")

# How a host reads its data and fits a step in its memory, and when a run gives up: it may go on with other values.
HOST_KEYS = (
    "data.num_workers",
    "data.read_ahead",
    "data.data_dir",
    "data.manual_dir",
    "data.check_archives",
    "data.accept_changes",
    "noise.file",
    "train.accumulate",
    "network.remat",
    "data.cache_dir",
    "evaluation.cache_dir",
    "train.accept_changes",
    "train.max_skipped",
)

# What may change in an unfinished run, under `train.accept_changes`: what a run that has diverged needs lowered.
CHANGEABLE = ("train.learning_rate", "train.clip_norm")

LAPS = "laps"  # folder of a run of EM with the runs of its laps
LONGEST_NAME = 200  # characters of a folder's name; most file systems allow 255 bytes


def flatten(config: ml_collections.ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} of a nested config, with references resolved and tuples as lists (as JSON has them)."""
    flat = {}
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def write_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes a config as `read_config` reads it."""
    write_json(path, {"schema": SCHEMA, **json.loads(config.to_json_best_effort())})


def read_results(path: pathlib.Path) -> dict[str, float]:
    """Returns name -> number of a results.json, under today's names."""
    results = json.loads(path.read_text())
    for new, old in OLD_RESULTS.items():
        results = {new + name.removeprefix(old) if name.startswith(old) else name: x for name, x in results.items()}
    return results


def is_trained(workdir: pathlib.Path) -> bool:
    """Says whether a run is finished: it has results, and they are not those of the model that it would start from."""
    path = workdir / "results.json"
    return path.exists() and read_results(path).get("train_seconds", 1.0) > 0.0


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Returns the flat config of a run under today's names and values.

    Raises:
        UserError: it is not JSON, or of a later version.
        OSError: it cannot be read.
    """
    try:
        stored = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): name another workdir, or restore the file") from error
    schema = stored.pop("schema", 1)
    if schema > SCHEMA:
        raise UserError(f"{path} has schema={schema}, and this version reads up to {SCHEMA}: update advdiff_jax")
    flat = _renamed(flatten(stored)) if schema == 1 else flatten(stored)
    if schema < 3 and flat.get("objective") in BY_LEVEL:
        flat = BEFORE_KEYS | flat | ({} if flat.get("sampling.final_denoise") else LEARNT)
    return flat


def _renamed(flat):
    new_keys = {old: new for new, old in OLD_KEYS.items()}
    new_sections = {old: new for new, old in OLD_SECTIONS.items()}
    if flat.get("data.source") == "linear_subspace":
        new_keys["data.components"] = "data.subspace_dim"  # one key had both meanings
    renamed = {}
    for key, value in flat.items():
        section, _, leaf = key.rpartition(".")
        key = new_keys.get(key, f"{new_sections.get(section, section)}.{leaf}" if section else key)
        values = OLD_VALUES.get(key, {})
        renamed[key] = [values.get(one, one) for one in value] if isinstance(value, list) else values.get(value, value)
    return renamed


def run_config(path: pathlib.Path, defaults: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of a run; a key that `read_config` does not find takes the value in `defaults`.

    Raises:
        UserError, OSError: see `read_config`.
    """
    config, known = defaults.copy_and_resolve_references(), flatten(defaults)
    values = {key: value for key, value in read_config(path).items() if key in known}
    with config.ignore_type():  # a key may hold a word or a number
        config.update_from_flattened_dict({key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    return config


def check_usable(workdir: pathlib.Path) -> None:
    """Raises UserError if the run directory, or the nearest folder above it that exists, cannot be written."""
    place = workdir
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be used ({error.strerror}): name another with --workdir") from error


def claim(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, evaluate_only: bool, previews: Iterable[str] = ()
) -> pathlib.Path:
    """Creates the run directory of a config, or checks that it holds a run of the same config.

    Args:
        config: the resolved config. Its HOST_KEYS may differ from the run's; a key that `read_config` does not find is new
            since, and takes the value here.
        workdir: created, with `config.json` in it, unless it is there.
        evaluate_only: the run must exist, and may differ in `sampling.*` and `evaluation.*`; results of a different
            setting go to `workdir/evaluations/KEY=VALUE,...`, so that those of the run's own setting stay.
        previews: folders that may be there before a run is.

    Returns:
        the folder for results.

    Raises:
        UserError: workdir cannot be written, belongs to another config, or holds no run to evaluate.
    """
    path, mine = workdir / "config.json", flatten(config)
    try:
        if not path.exists():
            if evaluate_only:
                raise UserError(f"{workdir} holds no run: train first (--mode=train), or name a run with --workdir")
            if workdir.is_dir() and any(child.name not in previews for child in workdir.iterdir()):
                raise UserError(f"{workdir} is not empty and holds no run: name another --workdir")
            workdir.mkdir(parents=True, exist_ok=True)
            write_config(path, config)
            return workdir
        theirs = read_config(path)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be used ({error.strerror}): name another with --workdir") from error

    if new := [key for key in mine if key not in theirs and _is_of_run(key)]:
        values = ", ".join(f"{key}={mine[key]!r}" for key in new)
        log.info("%s is of an earlier version; keys that it lacks take the values of this config: %s", path, values)
    differing = sorted(_differing(mine, theirs))
    evaluated = [key for key in differing if evaluate_only and key.split(".")[0] in EVALUATION_SECTIONS]
    if refused := [f"{key} ({theirs[key]!r} there, {mine[key]!r} here)" for key in differing if key not in evaluated]:
        other = "give the run's own values as well" if evaluate_only else "name another --workdir"
        if all(key.split(".")[0] in EVALUATION_SECTIONS for key in differing):
            other += ", or --mode=evaluate"
        raise UserError(f"workdir {workdir} belongs to a run with another config: {', '.join(refused)}; {other}")
    if not evaluated:
        return workdir
    out = evaluation_folder(mine, theirs, workdir)
    out.mkdir(parents=True, exist_ok=True)
    write_config(out / "config.json", config)
    return out


def _is_of_run(key):
    return key not in HOST_KEYS and not key.startswith(OF_A_MODE)


def _differing(mine, theirs):
    return {key for key in mine.keys() & theirs.keys() if _is_of_run(key) and mine[key] != theirs[key]}


def evaluation_folder(mine: dict[str, Any], theirs: dict[str, Any], workdir: pathlib.Path) -> pathlib.Path:
    """Returns where the results of an evaluation go: the workdir, or evaluations/KEY=VALUE,... of what differs from the run.

    Args:
        mine: flat config of the evaluation.
        theirs: flat config of the run.
        workdir: of the run.
    """
    keys = sorted(_differing(mine, theirs))
    return workdir / "evaluations" / folder_name(f"{key}={mine[key]}" for key in keys) if keys else workdir


def amend(config: ml_collections.ConfigDict, workdir: pathlib.Path, shares: Iterable[str] = ()) -> None:
    """Lets the run in `workdir` go on under this config, where all that differs may: more steps, or CHANGEABLE keys.

    More steps (`train.steps`) are taken where those already done would have been the same: with a constant learning rate after
    the warm-up, without laps of EM, and where nothing happens at a share of all steps. A finished run then counts as
    unfinished; its results.json is kept as results-STEPS.json. CHANGEABLE keys of an unfinished run change under
    `train.accept_changes`; the config before is kept as config-N.json.

    Args:
        config: resolved.
        workdir: of the run; without one nothing happens.
        shares: keys that this run reads and that are a share of its steps below 1, besides those of the penalty.

    Raises:
        UserError: the steps already done would have been others, or another process holds the workdir.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    mine, theirs = flatten(config), read_config(path)
    differing = _differing(mine, theirs)
    longer = differing == {"train.steps"} and mine["train.steps"] > theirs["train.steps"]
    finished = (workdir / "results.json").exists()
    changed = config.train.accept_changes and differing and differing <= {*CHANGEABLE} and not finished
    if not (longer or changed):
        return
    if longer:
        _check_longer(mine, theirs, workdir, shares)
    with lock(workdir):
        for key in sorted(differing):
            log.info("%s goes on with %s=%r instead of %r", workdir, key, mine[key], theirs[key])
        if longer and finished:
            os.replace(workdir / "results.json", workdir / f"results-{theirs['train.steps']}.json")
        if changed:
            shutil.copy2(path, workdir / f"config-{len([*workdir.glob('config-*.json')]) + 1}.json")
        write_config(path, config)


def _check_longer(mine, theirs, workdir, shares):
    other = []
    if (workdir / LAPS).exists():
        other.append("its laps drew with models of fewer steps")
    if mine["train.decay"] != "constant":
        other.append(f"train.decay={mine['train.decay']} follows train.steps")
    for key in ("robust.start_step", "robust.warmup_steps", *shares):
        if 0.0 < mine[key] < 1.0:
            other.append(f"{key}={mine[key]:g} is a share of train.steps")
    if other:
        raise UserError(
            f"config.train.steps={mine['train.steps']}: the run in {workdir} has {theirs['train.steps']}, and its first steps "
            f"would have been others ({'; '.join(other)}): name another --workdir, with config.init_from={workdir} to start "
            "from its parameters"
        )


def folder_name(parts):
    """Joins KEY=VALUE parts; a list that is too long for a name keeps its start and gets a checksum."""
    name = ",".join(parts).replace("/", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST_NAME - 13].decode(errors='ignore')}-{digest}"


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds an existing workdir for this process; the operating system releases it when the process ends, however it ends.

    Raises:
        UserError: another process holds it; the message names host, process and start.
    """
    with (workdir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise UserError(
                f"workdir {workdir} is in use by {file.read().strip() or 'another process'}: wait for it, stop it, or name "
                "another --workdir"
            ) from error
        file.truncate(0)
        now = datetime.datetime.now().isoformat(" ", "seconds")
        file.write(f"host {platform.node()}, process {os.getpid()}, since {now}\n")
        file.flush()
        yield
