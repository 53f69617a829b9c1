r"""Huber losses with a scheduled width: errors larger than c(t) count linearly.

    pseudo-Huber   2 c ( sqrt(e^2 + c^2) - c )                          e = prediction - target,     c = c(t)
    Huber          e^2 where |e| <= c,  2 c |e| - c^2 elsewhere

Both are about e^2 where |e| << c, and grow like 2 c |e| where |e| >> c. Pseudo-Huber is the loss of Khrapov et al. 2024 (arXiv
2403.16728). Huber is the textbook form (Huber 1964): small errors count exactly as in the square. RDDPM (arXiv 2508.02903)
names a robust regression loss without saying which, and Huber is this project's reading.

The schedules make c large at low noise, where details are learnt, and small at high noise, where outliers do harm:

    constant      c0
    exponential   c0^t                          (the paper's t / T: the time of the VP process at the same u)
    snr           (1 - c0) / (1 + u)^2 + c0     u = sigma / alpha

The paper of pseudo-Huber writes its loss for a vector. The authors' code, like this file, averages over coordinates.
c is in the units of the network's prediction (eps has variance 1).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import Criterion

# (VP time [B], noise_to_signal [B]) -> c [B].
HuberSchedule = Callable[[jax.Array, jax.Array], jax.Array]


def _positive(c0):
    if c0 <= 0.0:
        raise InvalidArgument(f"the Huber width c0 must be positive, got {c0}")


def constant(c0: float = 0.1) -> HuberSchedule:
    """Builds c = c0; raises InvalidArgument if c0 is not positive."""
    _positive(c0)
    return lambda t, u: jnp.full_like(t, c0)


def exponential(c0: float = 0.1) -> HuberSchedule:
    """Builds c = c0^t, from 1 at t = 0 to c0 at t = 1; raises InvalidArgument if c0 is not positive."""
    _positive(c0)
    return lambda t, u: c0**t


def snr(c0: float = 0.1) -> HuberSchedule:
    """Builds c = (1 - c0) / (1 + u)^2 + c0, from 1 without noise to c0; raises InvalidArgument if c0 is not positive."""
    _positive(c0)
    return lambda t, u: (1.0 - c0) / (1.0 + u) ** 2 + c0


def pseudo_huber(schedule: Schedule, c: HuberSchedule) -> Criterion:
    """Builds the pseudo-Huber criterion, a mean over dimensions, for `denoising` and `robust`.

    Args:
        schedule: gives u, and the time of the VP process, at t.
        c: `constant`, `exponential` or `snr`.

    Returns:
        (error [B, ...], t [B]) -> [B].
    """
    # Equals 2 c (sqrt(e^2 + c^2) - c), without its cancellation where |e| << c.
    return _criterion(schedule, c, lambda e, width: 2.0 * width * e**2 / (jnp.sqrt(e**2 + width**2) + width))


def huber(schedule: Schedule, c: HuberSchedule) -> Criterion:
    """Builds the Huber criterion, a mean over dimensions; arguments and result as for `pseudo_huber`."""

    def loss(e, width):
        inside = jnp.minimum(jnp.abs(e), width)
        return inside * (2.0 * jnp.abs(e) - inside)

    return _criterion(schedule, c, loss)


def _criterion(schedule, c, loss):
    def criterion(error, t):
        losses = loss(error, bcast(c(schedule.vp_time(t), schedule.noise_to_signal(t)), error))
        return jnp.mean(losses.reshape(losses.shape[0], -1), axis=-1)

    return criterion
