r"""The process between two times s < t: q(x_t | x_s) and q(x_s | x_t, x0), both Gaussian.

    alpha_ts = alpha_t / alpha_s,   var_ts = sigma_t^2 - alpha_ts^2 sigma_s^2     variance of the noise added from s to t
    E[x_s | x_t, x0] = alpha_ts (sigma_s / sigma_t)^2 x_t + alpha_s var_ts / sigma_t^2 x0
    Var[x_s | x_t, x0] = var_ts (sigma_s / sigma_t)^2

DDPM's beta_t is var_ts and its 1 - abar is sigma^2. So the formulas hold for any sub-sequence of times of any process.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(on_x x_t + on_x0 x0, small); `large` is var_ts. All of the shape of t."""

    on_x: jax.Array
    on_x0: jax.Array
    small: jax.Array
    large: jax.Array


def posterior(schedule: Schedule, t: jax.Array, s: jax.Array) -> Posterior:
    """Computes the coefficients of the module docstring for times t > s >= 0 of one shape."""
    alpha_t, sigma_t, alpha_s, sigma_s = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
    alpha_ts = alpha_t / alpha_s
    var_ts = jnp.maximum(sigma_t**2 - (alpha_ts * sigma_s) ** 2, 0.0)
    ratio = (sigma_s / sigma_t) ** 2
    return Posterior(alpha_ts * ratio, alpha_s * var_ts / sigma_t**2, var_ts * ratio, var_ts)


def learnt_log_variance(raw: jax.Array, small: jax.Array, large: jax.Array) -> jax.Array:
    """Computes Improved-DDPM's v log(large) + (1 - v) log(small), v = (raw + 1) / 2 (eq. 15); all broadcast together."""
    v = 0.5 * (raw + 1.0)
    return v * jnp.log(large) + (1.0 - v) * jnp.log(small)
