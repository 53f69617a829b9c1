"""Reads the model that `config.init_from` names: the workdir of a run, a folder in diffusers' layout, or a state dict."""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders.experiment import Experiment, build_network
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.errors import UserError
from advdiff_jax.interop import diffusers, state_dicts
from advdiff_jax.interop.diffusers_config import Settings
from advdiff_jax.interop.tensors import Conversion, from_tensors
from advdiff_jax.training import noise_floor
from advdiff_jax.training.checkpoint import Restored, has_checkpoint, restore_latest
from advdiff_jax.training.state import TrainState

SHOWN = 4  # names of tensors in a message

# How the network was trained: a run that starts from it may differ here.
TRAINING_KEYS = (
    "network.dropout",
    "network.dtype",
    "network.remat",
    "diffusion.edm_log_mean",
    "diffusion.edm_log_std",
    "diffusion.vlb_weight",
    "diffusion.vlb_bins",
)


class Origin(NamedTuple):
    """What is known of a kind of place that a model comes from.

    Attributes:
        is_one: path -> whether it is of this kind.
        settings: path -> what it says of network and process, as keys of a config; without facts where it says nothing.
        layout: shapes of our parameters -> names of its tensors; None: it is a workdir.
        tensors: path -> name -> array.
    """

    is_one: Callable[[pathlib.Path], bool]
    settings: Callable[[pathlib.Path], Settings]
    layout: Callable | None = None
    tensors: Callable | None = None


def _of_workdir(path):
    stored = workdir.read_config(path / "config.json") if (path / "config.json").exists() else {}
    described = {key: value for key, value in stored.items() if key.startswith(("network.", "diffusion."))}
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    return Settings({key: value for key, value in facts.items() if key not in TRAINING_KEYS}, {})


ORIGINS = {
    "diffusers": Origin(diffusers.is_folder, diffusers.read_settings, diffusers.layout, diffusers.read_tensors),
    "state dict": Origin(pathlib.Path.is_file, lambda path: Settings({}, {}), state_dicts.layout, state_dicts.read_tensors),
    "workdir": Origin(lambda path: True, _of_workdir),
}


def path_of(init_from: str) -> pathlib.Path:
    """Returns the absolute path that a key names."""
    return pathlib.Path(os.path.expanduser(init_from)).absolute()  # pathlib's raises for an unknown user


def origin_of(init_from: str) -> Origin:
    """Returns the kind of place that `init_from` is; raises UserError if a file there is damaged."""
    with as_user_error(f"config.init_from={init_from}"):
        return next(origin for origin in ORIGINS.values() if origin.is_one(path_of(init_from)))


def is_diffusers(init_from: str) -> bool:
    """Says whether `init_from` is a folder in diffusers' layout."""
    return origin_of(init_from) is ORIGINS["diffusers"]


def settings_of(init_from: str) -> Settings:
    """Reads what a model's place says of its network and process; raises UserError if that has no counterpart here."""
    origin = origin_of(init_from)
    with as_user_error(f"config.init_from={init_from}"):
        return origin.settings(path_of(init_from))


def follow(config: ml_collections.ConfigDict, overrides: Iterable[str] = ()) -> None:
    """Sets network and process of a config with `network.kind="pretrained"` to those of its `init_from`, in place.

    Args:
        config: unlocked.
        overrides: keys that the user gave: they replace defaults, and may not contradict facts.

    Raises:
        UserError: `init_from` names no model, or none that is described; or an override contradicts it.
    """
    if not config.init_from:
        raise UserError(
            "config.network.kind='pretrained' needs a model: set config.init_from to a folder in diffusers' layout, or to the "
            "workdir of a run"
        )
    settings, given = settings_of(config.init_from), {*overrides}
    if not settings.facts:
        where = "is a state dict, which does" if path_of(config.init_from).is_file() else "holds no run and no model, and does"
        raise UserError(
            f"config.init_from={config.init_from} {where} not describe its network: set config.network.kind=unet and the keys "
            "of its network and process"
        )
    if clash := sorted(given & settings.facts.keys() - {"network.kind"}):
        raise UserError(
            f"config.{clash[0]} follows config.init_from={config.init_from}, as network.kind='pretrained' says: leave it out"
        )
    with config.unlocked(), config.ignore_type():  # a size may be a number or a pair
        defaults = {key: value for key, value in settings.defaults.items() if key not in given}
        config.update_from_flattened_dict(defaults | settings.facts)


def check_same(config: ml_collections.ConfigDict) -> None:
    """Raises UserError if `init_from` describes another network or process than the config."""
    theirs, mine = settings_of(config.init_from).facts, workdir.flatten(config)
    differing = [
        f"{key} ({_listed(theirs[key])!r} there, {mine[key]!r} here)"
        for key in mine
        if key in theirs and _listed(theirs[key]) != mine[key]
    ]
    if differing:
        raise UserError(
            f"config.init_from={config.init_from} has another network or process: {', '.join(differing)}; "
            "config.network.kind=pretrained takes both from there"
        )


class Initial(NamedTuple):
    """A model to start from: its averaged parameters, and the noise floor that its training measured, if it has."""

    params: Any
    noise_floor: noise_floor.NoiseFloorStats


def read_initial(config: ml_collections.ConfigDict, experiment: Experiment) -> Initial:
    """Reads the model that `config.init_from` names.

    Args:
        config: resolved.
        experiment: built from it.

    Raises:
        UserError: there is no model, or one of another network.
    """
    if origin_of(config.init_from).layout is None:
        path = path_of(config.init_from)
        try:
            before = restore_latest(path, experiment.init, experiment.optimizer).state
        except UserError as error:
            raise UserError(f"config.init_from={config.init_from} cannot be used to initialise this run: {error}") from error
        return Initial(before.ema_params, before.noise_floor)
    conversion = convert(config, experiment)
    problems = [
        f"{what} {len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (
            ("missing", conversion.missing),
            ("not used", conversion.unused),
            ("of another shape", conversion.misshapen),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"config.init_from={config.init_from} does not fit the network; its tensors: {'; '.join(problems)}; --mode=inspect "
            "lists all"
        )
    return Initial(conversion.params, noise_floor.create())


def convert(config: ml_collections.ConfigDict, experiment: Experiment) -> Conversion:
    """Converts the tensors of a model of another library; raises UserError if they cannot be read."""
    origin, shapes = origin_of(config.init_from), jax.eval_shape(experiment.init, jax.random.key(0))
    with as_user_error(f"config.init_from={config.init_from}"):
        tensors = origin.tensors(path_of(config.init_from))
        return from_tensors(tensors, shapes, origin.layout(shapes), build_network(config).num_heads)


def restore(config: ml_collections.ConfigDict, experiment: Experiment, folder: pathlib.Path) -> Restored:
    """Returns the newest checkpoint of the run in `folder`; of a run that has none yet, the model that it starts from.

    The latter is at step 0, without a state of the optimiser and without `meta`.

    Raises:
        UserError: there is neither.
    """
    if has_checkpoint(folder) or not config.init_from:
        return restore_latest(folder, experiment.init, experiment.optimizer)
    initial = read_initial(config, experiment)
    state = TrainState(jnp.zeros((), jnp.int32), initial.params, (), initial.params, initial.noise_floor)
    return Restored(state, {})


def _listed(value):
    return list(value) if isinstance(value, tuple) else value
