r"""The noise floor of a data set: how much noise variance a model explains at each noise level, measured while it trains.

    q(u) = 1 - E || eps_th(x_t, t) - eps ||^2,      a mean over dimensions, at u = sigma / alpha

is the share of the noise variance that the model explains: 0 where noise and data are indistinguishable, 1 where x_t is
pure noise. On Gaussian data of standard deviation s in every direction it is u^2 / (u^2 + s^2): 20 % at u = s / 2. Data on a
manifold of d of D dimensions, with noise of std s around it, have q = (1 - d/D) u^2 / (u^2 + s^2) up to the scale of the
manifold. So the level at which q passes 20 % follows the noise in the data without labels: neither the noisy examples nor
the noise's std are given. On clean data it lies where the model no longer resolves the manifold.

The level measures noise only if the data leave most directions empty (1 - d/D well above the share). Data that fill all
directions have a level of their own, noisy or not, and are shrunk below it. With a single scale the level is half that scale,
and reports warn of it. The report's gains show the loss in the smallest directions.

The network must be trained by plain denoising while q is measured, because a penalty changes the error.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Bins of u, even in log u, in the data's units. q is smooth in log u, so wide bins are fine, and each sees enough examples.
EDGES = np.geomspace(1e-3, 1e2, 26)
CENTRES = np.sqrt(EDGES[1:] * EDGES[:-1])
PRIOR = 1e-3  # weight of the error of the best model of N(0, I) in each bin, in batches
MEMORY = 0.995  # decay of the running sums per step: a memory of 200 steps, over which a young model changes little


class NoiseFloorStats(NamedTuple):
    """Running sums over the bins of u, in batches: a whole batch in one bin would count as 1.

    Attributes:
        error: of || eps_th - eps ||^2, [bins].
        count: of examples, [bins].
    """

    error: jax.Array
    count: jax.Array


def create() -> NoiseFloorStats:
    """Returns the statistics before anything is measured."""
    return NoiseFloorStats(jnp.zeros(CENTRES.shape, jnp.float32), jnp.zeros(CENTRES.shape, jnp.float32))


def update(stats: NoiseFloorStats, noise_to_signal: jax.Array, error: jax.Array) -> NoiseFloorStats:
    """Adds a batch of u [B] and || eps_th - eps ||^2 [B]; a level beyond the bins counts in the outermost one."""
    at = jnp.clip(jnp.searchsorted(EDGES, noise_to_signal) - 1, 0, len(CENTRES) - 1)
    return NoiseFloorStats(MEMORY * stats.error.at[at].add(error / len(at)), MEMORY * stats.count.at[at].add(1.0 / len(at)))


def explained(stats: NoiseFloorStats) -> jax.Array:
    """Returns q at the centres of the bins, [bins]; a bin without examples has the q of the best model of N(0, I)."""
    return 1.0 - (stats.error + PRIOR / (1.0 + CENTRES**2)) / (stats.count + PRIOR)


def estimate_noise_floor(stats: NoiseFloorStats, share: float | jax.Array) -> jax.Array:
    """Estimates the noise level u below which the model explains less than `share` of the noise variance, [].

    The search starts at the high levels, where the error is small and well measured, and ends at the first bin below the
    share; log u is interpolated between bins. If the model explains more than `share` everywhere, the result is CENTRES[0].
    """
    q, x = explained(stats), jnp.log(jnp.asarray(CENTRES, jnp.float32))
    below = jnp.max(jnp.where(q[:-1] < share, jnp.arange(len(q) - 1), -1))
    low, high = jnp.maximum(below, 0), jnp.maximum(below, 0) + 1
    part = jnp.clip((share - q[low]) / jnp.maximum(q[high] - q[low], 1e-6), 0.0, 1.0)
    return jnp.exp(jnp.where(below < 0, x[0], x[low] + part * (x[high] - x[low])))


def is_measured(stats: NoiseFloorStats) -> bool:
    """Says whether any batch has been added."""
    return bool(jnp.sum(stats.count) > 0.0)
