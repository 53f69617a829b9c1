r"""The final step: samples of a model of noisy data, denoised once more by the model itself, without retraining.

A model of data under noise of standard deviation s draws y = x + s n. With noise of a low level u added, z = y + u e carries
noise of variance s^2 + u^2, and Tweedie's formula gives the mean of the clean x from the model's own score at u:

    E[x | z] = z + (s^2 + u^2) grad log p_u(z) = z + (s^2 + u^2) / u^2 (x0hat(z, u) - z)

It is a posterior mean: detail is lost where noise and signal overlap. The factor multiplies the network's error, so u must
not be much smaller than s. The mean over several e is taken.

A sample may be cleaner than that. The same evaluations tell its own level: noise of std s_i leaves the share

    q = 1 - mean_d (eps_th(z) - e)^2 = u^2 / (s_i^2 + u^2)

of the added noise explained, so s_i = u sqrt(1 / q - 1), content that the model does not resolve included.
"""

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule, bcast


def final_denoise(
    schedule: Schedule,
    denoise,
    keys: jax.Array,
    y: jax.Array,
    std: jax.Array | float,
    level: jax.Array | float,
    draws: int,
    own: bool = False,
) -> jax.Array:
    """Applies the module docstring's formula.

    Args:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`, unclipped.
        keys: typed keys, [B].
        y: samples, [B, ...].
        std: s, the noise in the data that the model was trained on, in the data's units, scalar or [B].
        level: u, a noise-to-signal ratio, scalar or [B].
        draws: number of e.
        own: each sample's s is its own s_i, at most `std`.

    Returns:
        means of the clean data, [B, ...].
    """
    level, std = (jnp.broadcast_to(jnp.asarray(value, jnp.float32), y.shape[:1]) for value in (level, std))
    t, u = schedule.time(level), bcast(level, y)
    alpha = bcast(schedule.alpha(t), y)

    def add(totals, i):
        e = rng.normal(rng.fold_in(keys, i), y)
        z = y + u * e
        found = denoise(alpha * z, t)
        missed = jnp.mean((found.eps - e).reshape(len(y), -1) ** 2, axis=1)
        return jax.tree.map(jnp.add, totals, (z, found.x0 - z, missed)), None

    start = jnp.zeros_like(y), jnp.zeros_like(y), jnp.zeros(len(y), y.dtype)
    z, step, missed = jax.tree.map(lambda total: total / draws, jax.lax.scan(add, start, jnp.arange(draws))[0])
    variance = std**2
    if own:
        variance = jnp.minimum(level**2 * missed / jnp.maximum(1.0 - missed, 1e-6), variance)
    return z + bcast((variance + level**2) / level**2, y) * step
