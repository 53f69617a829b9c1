r"""How much of the noise a model can tell, at each noise level, measured while it trains.

    q(u) = 1 - E || eps_th(x_t, t) - eps ||^2,      a mean over dimensions, at u = sigma / alpha

is the share of the noise's variance that the model explains: 0 where noise and data look alike, 1 where all of x_t is noise.
On Gaussian data of standard deviation s in every direction it is u^2 / (u^2 + s^2): a fifth at u = s / 2. Data on a
manifold of d of D dimensions, with noise of std s around it, have q = (1 - d/D) u^2 / (u^2 + s^2) up to the scale of the
manifold. So the level at which q passes a fifth follows the noise floor of a data set, with nobody telling which examples
are noisy, or how much; and on clean data it lies where the model no longer resolves the manifold, and little is lost there.

This is a level of noise only where data leave most directions empty (1 - d/D well above the share). Data that fill all
directions have a level of their own, noisy or not, and are shrunk below it: half their scale, if they have one scale, of which
reports warn. What their smallest directions lose is in the report's gains.

It must be measured on a model trained by plain denoising: a second term changes the error.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Bins of u, even in its logarithm, in the data's units; q is smooth in log u, and wide bins see enough examples each.
EDGES = np.geomspace(1e-3, 1e2, 26)
CENTRES = np.sqrt(EDGES[1:] * EDGES[:-1])
PRIOR = 1e-3  # what the error of a model of N(0, I) counts in each bin, in batches
MEMORY = 0.995  # of the running means, per step: the last two hundred steps count, over which a young model changes little


class Levels(NamedTuple):
    """Running sums over the bins of u, in batches: a whole batch in one bin would count as 1.

    Attributes:
        error: of || eps_th - eps ||^2, [bins].
        count: of examples, [bins].
    """

    error: jax.Array
    count: jax.Array


def create() -> Levels:
    """Before anything is measured."""
    return Levels(jnp.zeros(CENTRES.shape, jnp.float32), jnp.zeros(CENTRES.shape, jnp.float32))


def update(levels: Levels, noise_to_signal: jax.Array, error: jax.Array) -> Levels:
    """Adds a batch: u [B] and || eps_th - eps ||^2 of each example [B]; what lies beyond the bins goes to the last ones."""
    at = jnp.clip(jnp.searchsorted(EDGES, noise_to_signal) - 1, 0, len(CENTRES) - 1)
    return Levels(MEMORY * levels.error.at[at].add(error / len(at)), MEMORY * levels.count.at[at].add(1.0 / len(at)))


def explained(levels: Levels) -> jax.Array:
    """q at the centres of the bins, [bins]; where nothing was seen, that of the best model of N(0, I)."""
    return 1.0 - (levels.error + PRIOR / (1.0 + CENTRES**2)) / (levels.count + PRIOR)


def crossing(levels: Levels, share: float | jax.Array) -> jax.Array:
    """The noise level u below which the model explains less than `share` of the noise, [].

    The search comes from the high levels, where the error is small and well measured, and ends at the first bin below the
    share; between bins log u is interpolated. CENTRES[0] where the model explains more everywhere.
    """
    q, x = explained(levels), jnp.log(jnp.asarray(CENTRES, jnp.float32))
    below = jnp.max(jnp.where(q[:-1] < share, jnp.arange(len(q) - 1), -1))
    low, high = jnp.maximum(below, 0), jnp.maximum(below, 0) + 1
    part = jnp.clip((share - q[low]) / jnp.maximum(q[high] - q[low], 1e-6), 0.0, 1.0)
    return jnp.exp(jnp.where(below < 0, x[0], x[low] + part * (x[high] - x[low])))


def is_measured(levels: Levels) -> bool:
    """Whether any batch has been added."""
    return bool(jnp.sum(levels.count) > 0.0)
