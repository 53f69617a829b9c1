r"""The final step: samples of a model of noisy data, denoised once more by the model itself, without retraining.

A model of data under noise of standard deviation s draws y = x + s n. With noise of a low level u added, z = y + u e carries
noise of variance s^2 + u^2, and Tweedie's formula gives the mean of the clean x from the model's own score at u:

    E[x | z] = z + (s^2 + u^2) grad log p_u(z) = z + (s^2 + u^2) / u^2 (x0hat(z, u) - z)

It is a posterior mean: detail is lost where noise and signal overlap. The factor multiplies the network's error, so u must
not be much smaller than s. The mean over several e is taken.

A sample may be cleaner than that. The same evaluations tell its own level: noise of std s_i leaves the share

    q = 1 - mean_d (eps_th(z) - e)^2 = u^2 / (s_i^2 + u^2)

of the added noise explained, so s_i = u sqrt(1 / q - 1), content that the model does not resolve included.

In place of the mean, a draw: x given z has the covariance (s^2 + u^2) J, where J is the derivative of E[x | z] in z. On
Gaussian data J is the same everywhere, and

    x = E[x | z] + sqrt(s^2 + u^2) J^(1/2) n,     J^(1/2) ~ (15 J - 10 J^2 + 3 J^3) / 8,     n ~ N(0, I)

has the law of the clean data. On other data it is the Gaussian with the right mean and covariance. The polynomial is the square
root within 5 % above 0.5, too small below, and 0 at 0: a direction that holds noise alone gets none.
"""

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule, bcast

_DRAW = 0x64726177  # folded into the keys of a draw's n, apart from those of e

COST_OF_DRAW = 7  # network evaluations: one for the mean, and two for each of three products with J


def final_denoise(
    schedule: Schedule,
    denoise,
    keys: jax.Array,
    y: jax.Array,
    std: jax.Array | float,
    level: jax.Array | float,
    draws: int,
    own: bool = False,
    random: bool = False,
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
        random: a draw of the clean data in place of the mean; from one e, whatever `draws` is.

    Returns:
        means of the clean data, or draws, [B, ...].
    """
    level, std = (jnp.broadcast_to(jnp.asarray(value, jnp.float32), y.shape[:1]) for value in (level, std))
    t, u = schedule.time(level), bcast(level, y)
    alpha = bcast(schedule.alpha(t), y)

    def look(z, e):
        """Returns the step from z to the estimate of what the model has learnt, [B, ...], and the share of e missed, [B]."""
        found = denoise(alpha * z, t)
        return found.x0 - z, jnp.mean((found.eps - e).reshape(len(y), -1) ** 2, axis=1)

    def removed(missed):
        """Returns the variance of the noise that is removed from each sample, [B, ...]."""
        read = level**2 * missed / jnp.maximum(1.0 - missed, 1e-6)
        return bcast(jnp.minimum(read, std**2) if own else std**2, y)

    if random:
        e = rng.normal(rng.fold_in(keys, 0), y)
        z = y + u * e
        step, push, missed = jax.linearize(lambda z: look(z, e), z, has_aux=True)
        variance = removed(missed) + u**2

        def derivative(n):
            """Returns the derivative of the mean, z + variance / u^2 step, along n."""
            return n + variance / u**2 * push(n)

        mean = z + variance / u**2 * step
        once = derivative(rng.normal(rng.fold_in(keys, _DRAW), y))
        twice = derivative(once)
        return mean + jnp.sqrt(variance) * (15.0 * once - 10.0 * twice + 3.0 * derivative(twice)) / 8.0

    def add(totals, i):
        e = rng.normal(rng.fold_in(keys, i), y)
        z = y + u * e
        return jax.tree.map(jnp.add, totals, (z, *look(z, e))), None

    start = jnp.zeros_like(y), jnp.zeros_like(y), jnp.zeros(len(y), y.dtype)
    z, step, missed = jax.tree.map(lambda total: total / draws, jax.lax.scan(add, start, jnp.arange(draws))[0])
    return z + (removed(missed) + u**2) / u**2 * step
