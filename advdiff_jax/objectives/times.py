"""Training times on one side of a noise level."""

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule


def time_above(schedule: Schedule, lowest: jax.Array, v: jax.Array) -> jax.Array:
    """Draws a training time, conditional on sigma / alpha > `lowest`; v ~ U[0, 1), all of shape [B]."""
    share = _bracket(schedule, lowest, v)[1]
    return schedule.training_time(share + (1.0 - share) * v)


def time_below(schedule: Schedule, highest: jax.Array, v: jax.Array) -> jax.Array:
    """Draws a training time, conditional on sigma / alpha <= `highest`; the least of the process if none is."""
    return schedule.training_time(_bracket(schedule, highest, v)[0] * v)


def _bracket(schedule, level, v):
    """Brackets the share of training times with sigma / alpha <= `level`, by bisection."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        below = schedule.noise_to_signal(schedule.training_time(middle)) <= level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    return jax.lax.fori_loop(0, 24, halve, (jnp.zeros_like(v), jnp.ones_like(v)))
