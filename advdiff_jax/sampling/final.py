r"""The final step: samples of a model of noisy data, denoised once more by the model itself, without retraining.

A model of data under noise of standard deviation s draws y = x + s n. With noise of a low level u added, z = y + u e carries
noise of variance s^2 + u^2, and Tweedie's formula gives the mean of the clean x from the model's own score at u:

    E[x | z] = z + (s^2 + u^2) grad log p_u(z) = z + (s^2 + u^2) / u^2 (x0hat(z, u) - z)

It is a posterior mean: detail is lost where noise and signal overlap. The factor multiplies the network's error, so u must
not be much smaller than s. The mean over several e is taken.
"""

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule, bcast


def final_denoise(
    schedule: Schedule, denoise, keys: jax.Array, y: jax.Array, std: jax.Array | float, level: jax.Array | float, draws: int
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

    Returns:
        means of the clean data, [B, ...].
    """
    level, std = (jnp.broadcast_to(jnp.asarray(value, jnp.float32), y.shape[:1]) for value in (level, std))
    t = schedule.time(level)
    factor, alpha, level = (bcast(value, y) for value in ((std**2 + level**2) / level**2, schedule.alpha(t), level))

    def add(total, i):
        z = y + level * rng.normal(rng.fold_in(keys, i), y)
        x0 = denoise(alpha * z, t).x0
        return total + z + factor * (x0 - z), None

    return jax.lax.scan(add, jnp.zeros_like(y), jnp.arange(draws))[0] / draws
