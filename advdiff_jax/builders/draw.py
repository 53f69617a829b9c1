"""Config -> how a sample is drawn: start, sampler and final step, as functions of the network's prediction."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from advdiff_jax import rng
from advdiff_jax.builders.noise_file import final_std
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import Process, build_sampler
from advdiff_jax.noise import quiet
from advdiff_jax.sampling import final
from advdiff_jax.sampling.sample import prior

FINAL = 0x66696E61  # folded into a sample's key for its final step, so that the steps before keep their draws


class SampleKeys(NamedTuple):
    """The keys of samples by purpose, [B] each."""

    start: jax.Array
    steps: jax.Array
    final: jax.Array


def split_keys(keys: jax.Array) -> SampleKeys:
    """Derives the keys of start, steps and final step from the keys of samples [B]."""
    return SampleKeys(*rng.split(keys, 2), rng.fold_in(keys, FINAL))


def example_keys(seed: int, count: int) -> jax.Array:
    """Returns the keys of the first `count` samples of a run of `sampling.seed`, see `parallel.parallel_sampler`."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(jnp.arange(count))


def final_level(c: ml_collections.ConfigDict, std: jax.Array | float, shape: tuple[int, ...]) -> jax.Array | float:
    """Returns the noise-to-signal ratio of the final step of samples of `shape`, given the section `sampling`.

    By default it is the std in images, where a network follows its own error up to there, and half of it elsewhere: points and
    small images have structure of that size, which more noise hides.
    """
    return 0.0 * std + c.final_level if c.final_level else (1.0 if quiet.are_patches(shape) else 0.5) * std


def final_evaluations(c: ml_collections.ConfigDict) -> int:
    """Returns the network evaluations of the final step, given the section `sampling`; 0: there is none."""
    if not final_std(c):
        return 0
    return final.COST_OF_DRAW if c.final_random else c.final_draws


def build_finish(config: ml_collections.ConfigDict, process: Process) -> Callable:
    """Builds finish(predict, keys [B], samples [B, ...]) -> samples: the step of `sampling.final_denoise`, if there is one.

    A std that is still to be measured has none; see `levels.measured`.
    """
    c = config.sampling
    if not final_std(c):
        return lambda predict, keys, samples: samples
    std, how = c.final_denoise, {"draws": c.final_draws, "own": c.final_own, "random": c.final_random}

    def finish(predict, keys, samples):
        level = final_level(c, std, samples.shape[1:])
        cleaned = final.final_denoise(process.schedule, process.denoiser(predict), keys, samples, std, level, **how)
        return jnp.clip(cleaned, -c.clip, c.clip) if c.clip else cleaned

    return finish


def build_draw(config: ml_collections.ConfigDict, process: Process, shape: tuple[int, ...]) -> Callable:
    """Builds draw(predict, keys [B]) -> samples [B, *shape]; predict is (x [B, ...], t [B]) -> the network's prediction.

    Raises:
        UserError: see `build_sampler`.
    """
    solve = build_sampler(config, process.schedule, objective_spec(config).lowest_noise(config))
    finish = build_finish(config, process)

    def draw(predict, keys):
        own = split_keys(keys)
        denoise = process.denoiser(predict, clip=config.sampling.clip or None)
        samples = solve(denoise, own.steps, prior(own.start, shape, process.schedule.prior_std))
        return finish(predict, own.final, samples)

    return draw
