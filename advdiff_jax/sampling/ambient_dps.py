"""A-DPS: posterior samples by a model that is given a mask (Aali et al. 2024, arXiv 2403.08728)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.sampling.posterior import Measurement
from advdiff_jax.sampling.steps import Step, stateless


def ambient_dps(schedule: Schedule, measurement: Measurement, zeta: float) -> Step:
    """Builds the step of A-DPS, in z = x_t / alpha with noise-to-signal u:

        z_s = z + (u_s - u) (z - D) / u - zeta grad_z ||y - A D(z, u)||

    D is a model that is given one fixed mask of those that it was trained with; A is the operator of the measurement, which may
    hide other pixels.

    Args:
        schedule: alpha and sigma.
        measurement: of the examples that are sampled.
        zeta: length of the gradient step, in the data's units.
    """
    y, operator, _ = measurement

    def step(denoise: Callable, keys, x, t, s):
        del keys
        u, u_s, alpha = schedule.noise_to_signal(t), schedule.noise_to_signal(s), schedule.alpha(t)

        def misfit(z):
            x0 = denoise(alpha * z, jnp.full(z.shape[:1], t)).x0
            squared = jnp.sum((y - operator(x0)) ** 2, axis=tuple(range(1, y.ndim)))
            is_off = squared > 0.0
            return jnp.sum(jnp.where(is_off, jnp.sqrt(jnp.where(is_off, squared, 1.0)), 0.0)), x0

        z = x / alpha
        slope, x0 = jax.grad(misfit, has_aux=True)(z)
        return schedule.alpha(s) * (z + (u_s - u) / u * (z - x0) - zeta * slope)

    return stateless(step)
