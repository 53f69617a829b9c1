"""The folder of a run: made, claimed by a config, and refused to every other config."""

import json
import os
import pathlib
from typing import Any

import ml_collections

from advdiff_jax.errors import UserError

# What may differ from the run's config when it is only looked at: how samples are drawn, and how they are judged.
EVALUATION_SECTIONS = ("sampling", "evaluation")

# How a host reads its data and not which: a run may go on with other values, from the same batch.
HOST_KEYS = (
    "data.num_workers",
    "data.read_ahead",
    "data.data_dir",
    "data.manual_dir",
    "data.cache_dir",
    "evaluation.cache_dir",
)
LOOKS_AT_DATA = ("preview", "poison", "transfer")  # folders that may be there before a run is


def flatten(config: ml_collections.ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of a nested config, with references resolved and tuples as lists (as JSON has them)."""
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
    partial.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(partial, path)


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The flat config of a run; raises UserError if it is not JSON, OSError if it cannot be read."""
    try:
        return flatten(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): name another workdir, or restore the file") from error


def claim(config: ml_collections.ConfigDict, workdir: pathlib.Path, evaluate_only: bool) -> pathlib.Path:
    """Makes sure that `workdir` is this config's, and returns the folder for results.

    Args:
        config: the resolved config; its HOST_KEYS may differ from the run's.
        workdir: made, with `config.json` in it, unless it is there.
        evaluate_only: the run must exist, and may differ in `sampling.*` and `evaluation.*`; results of a different
            setting go to `workdir/evaluations/KEY=VALUE,...`, so that those of the run's own setting stay.

    Raises:
        UserError: workdir cannot be written, belongs to another config, or holds no run to evaluate.
    """
    path, mine = workdir / "config.json", flatten(config)
    try:
        if not path.exists():
            if evaluate_only:
                raise UserError(f"{workdir} holds no run to look at: train first (--mode=train), or name its --workdir")
            if workdir.is_dir() and any(child.name not in LOOKS_AT_DATA for child in workdir.iterdir()):
                raise UserError(f"{workdir} is neither empty nor a run of ours: name another --workdir")
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(path, json.loads(config.to_json_best_effort()))
            return workdir
        theirs = read_config(path)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be used ({error.strerror}): name another with --workdir") from error

    compared = (mine.keys() | theirs.keys()) - {*HOST_KEYS}
    differing = sorted(key for key in compared if mine.get(key) != theirs.get(key))
    looks = [key for key in differing if evaluate_only and key.split(".")[0] in EVALUATION_SECTIONS]
    if refused := [f"{key} ({theirs.get(key)!r} there, {mine.get(key)!r} here)" for key in differing if key not in looks]:
        other = "give the run's own values as well" if evaluate_only else "name another --workdir"
        if all(key.split(".")[0] in EVALUATION_SECTIONS for key in differing):
            other += ", or --mode=evaluate"
        raise UserError(f"workdir {workdir} belongs to a run with another config: {', '.join(refused)}; {other}")
    if not looks:
        return workdir
    out = workdir / "evaluations" / ",".join(f"{key}={mine[key]}" for key in looks).replace("/", "_")
    out.mkdir(parents=True, exist_ok=True)
    return out
