r"""The process as a stochastic differential equation, for any schedule: drift and diffusion follow by autodiff.

    forward SDE            dx = f x dt + g dw           f = d log alpha / dt,   g^2 = 2 sigma^2 d log(sigma / alpha) / dt
    reverse SDE            dx = (f x - g^2 score) dt + g dw,   dt < 0           (Anderson 1982)
    probability-flow ODE   dx = (f x - g^2 score / 2) dt = (alpha' x0hat + sigma' eps_hat) dt        (Song et al. 2021)

score = -eps_hat / sigma. The second form of the ODE is the time derivative of x_t = alpha x0 + sigma eps with both
estimates held fixed; it needs no division by sigma or alpha.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule


class Rates(NamedTuple):
    """Coefficients at a time t (scalars): f, g^2, and the derivatives of alpha and sigma."""

    drift: jax.Array
    diffusion_squared: jax.Array
    alpha_rate: jax.Array
    sigma_rate: jax.Array


def rates(schedule: Schedule, t: jax.Array) -> Rates:
    """Computes f, g^2, alpha' and sigma' of the module docstring at a scalar time t > 0."""
    t = jnp.asarray(t, jnp.float32)
    drift = jax.grad(schedule.log_alpha)(t)
    sigma, sigma_rate = jax.value_and_grad(schedule.sigma)(t)
    return Rates(drift, 2.0 * sigma * (sigma_rate - drift * sigma), jax.grad(schedule.alpha)(t), sigma_rate)


def reverse_drift(schedule: Schedule, estimate: Denoised, x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the drift of the reverse SDE at (x, scalar t), given the estimate at x, and g^2."""
    found = rates(schedule, t)
    g2 = found.diffusion_squared
    return found.drift * x + g2 / schedule.sigma(t) * estimate.eps, g2


def velocity(schedule: Schedule, estimate: Denoised, t: jax.Array) -> jax.Array:
    """Returns dx/dt of the probability-flow ODE at the scalar time t, given the estimate at x_t."""
    found = rates(schedule, t)
    return found.alpha_rate * estimate.x0 + found.sigma_rate * estimate.eps
