"""Config -> what follows from the noise that a run has measured, and keeps in `noise.npz`."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax.builders.penalty import WEIGHTS
from advdiff_jax.builders.registry import Choice, build, lookup
from advdiff_jax.noise import measure
from advdiff_jax.noise.measure import NoiseLevels

FILE = "noise.npz"
MEASURED = "measured"  # value of sampling.final_denoise, and of robust.floor
LEARNT = "learnt"  # value of sampling.final_denoise
CUT = 0.5  # noise floor over the std of the noise; see `training.noise_floor`
LEAST_MARGIN = 1.05  # where no clean example teaches the low levels

# noise.without_clean -> whether the model learns the noise too.
WITHOUT_CLEAN = {"final": Choice(lambda c: True), "lowest": Choice(lambda c: False)}


def common_level(levels: NoiseLevels) -> float:
    """Returns the median std of the noisy examples; 0 if there are none."""
    return float(np.median(levels.of_noisy())) if len(levels.of_noisy()) else 0.0


def has_clean(levels: NoiseLevels) -> bool:
    """Says whether enough examples are clean to teach the low levels."""
    return bool(np.sum(levels.is_clean) >= measure.FEWEST)


def learns_noise(config: ml_collections.ConfigDict, levels: NoiseLevels) -> bool:
    """Says whether a model taught by level takes noisy examples as they are: too few are clean to teach the low levels."""
    return not has_clean(levels) and build(WITHOUT_CLEAN, config, "noise.without_clean")


def taught(config: ml_collections.ConfigDict, levels: NoiseLevels) -> np.ndarray:
    """Returns the level of each example as training takes it, [N]: 0 of those that teach everything, inf that teach nothing."""
    used = levels.used()
    return np.where(np.isinf(used), used, np.float32(0.0)) if learns_noise(config, levels) else used


def final_std(c: ml_collections.ConfigDict) -> float:
    """Returns the std that the final step removes, given the section `sampling`; 0: there is none, or it is not known yet."""
    return 0.0 if c.final_denoise in (MEASURED, LEARNT) else c.final_denoise


def margin(config: ml_collections.ConfigDict, levels: NoiseLevels) -> float:
    """Returns the margin of noisy examples: `noise.margin`, or the least where too few clean examples teach what is below."""
    return config.noise.margin if has_clean(levels) else LEAST_MARGIN


def lowest_level(config: ml_collections.ConfigDict) -> float:
    """Returns the noise-to-signal ratio below which no example teaches; 0 before the levels are known."""
    if not config.noise.file:
        return 0.0
    levels = measure.load(pathlib.Path(config.noise.file))
    return margin(config, levels) * float(taught(config, levels).min())


def _floor_of_file(config):
    return CUT * common_level(measure.load(pathlib.Path(config.noise.file))) if config.noise.file else 0.0


class FloorSpec(NamedTuple):
    """What is known of a name of `config.robust.floor`.

    Attributes:
        build: (config, noise floor that plain training measures) -> the noise floor that a weight follows. That of the data is
            half of the measured level, as `levels.located` names the file; 0: nothing was found.
        by_training: plain training must measure it.
        by_data: the noise of the data must be measured.
        reads: keys of the config that it reads.
    """

    build: Callable
    by_training: bool
    by_data: bool
    reads: tuple[str, ...] = ()


FLOORS = {
    MEASURED: FloorSpec(lambda config, trained: jnp.maximum(trained, _floor_of_file(config)), True, True, ("noise.file",)),
    "trained": FloorSpec(lambda config, trained: trained, True, False),
    "data": FloorSpec(lambda config, trained: _floor_of_file(config), False, True, ("noise.file",)),
}


def floor_spec(config: ml_collections.ConfigDict) -> FloorSpec:
    """Returns the spec of `config.robust.floor`; raises UserError if it is unknown."""
    return lookup(FLOORS, config, "robust.floor")


def follows_floor(config: ml_collections.ConfigDict) -> bool:
    """Says whether the weight of a penalty follows a noise floor."""
    return "robust.floor" in lookup(WEIGHTS, config, "robust.weight").reads


def follows_training(config: ml_collections.ConfigDict) -> bool:
    """Says whether a penalty has a weight that follows a noise floor which plain training must measure."""
    return "robust.explained" in lookup(WEIGHTS, config, "robust.weight").reads and floor_spec(config).by_training


def followed_floor(config: ml_collections.ConfigDict, trained: jax.Array | float) -> jax.Array | float:
    """Returns the noise floor that the weight follows, if it follows one, given the one that plain training measures."""
    return floor_spec(config).build(config, trained) if follows_floor(config) else trained
