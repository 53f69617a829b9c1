"""Config -> how a sample is drawn: start, sampler and final step, as functions of the network's prediction."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from advdiff_jax import rng
from advdiff_jax.builders.levels import MEASURED
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import Process, build_sampler
from advdiff_jax.sampling.final import final_denoise
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


def final_level(c: ml_collections.ConfigDict) -> float:
    """Returns the noise-to-signal ratio of the final step, given the section `sampling`."""
    return c.final_level or 0.5 * c.final_denoise


def build_finish(config: ml_collections.ConfigDict, process: Process) -> Callable:
    """Builds finish(predict, keys [B], samples [B, ...]) -> samples: the step of `sampling.final_denoise`, if there is one.

    A std that is still to be measured has none; see `levels.measured`.
    """
    c = config.sampling
    if c.final_denoise in (0.0, MEASURED):
        return lambda predict, keys, samples: samples
    std, level = c.final_denoise, final_level(c)

    def finish(predict, keys, samples):
        denoise = process.denoiser(predict)
        cleaned = final_denoise(process.schedule, denoise, keys, samples, std, level, c.final_draws, c.final_own)
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
