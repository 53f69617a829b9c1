r"""Scheduled pseudo-Huber loss (Khrapov et al. 2024, arXiv 2403.16728): errors larger than c(t) count linearly.

    2 c ( sqrt(e^2 + c^2) - c ),     e = prediction - target,     c = c(t)

about e^2 where |e| << c and 2 c |e| where |e| >> c. The schedules make c large at low noise, where details are
learnt, and small at high noise, where outliers do harm:

    constant      c0
    exponential   c0^t                          (the paper's t / T: the time of the VP process at the same u)
    snr           (1 - c0) / (1 + u)^2 + c0     u = sigma / alpha

The paper writes the loss for a vector. Its published code, like this file, takes it coordinate by coordinate and averages.
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
        raise InvalidArgument(f"the pseudo-Huber c0 must be positive, got {c0}")


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
    """Builds the criterion of the module docstring, a mean over dimensions, for `denoising` and `robust`.

    Args:
        schedule: gives u, and the time of the VP process, at t.
        c: `constant`, `exponential` or `snr`.

    Returns:
        (error [B, ...], t [B]) -> [B].
    """

    def criterion(error, t):
        width = bcast(c(schedule.vp_time(t), schedule.noise_to_signal(t)), error)
        # Equals 2 c (sqrt(e^2 + c^2) - c), without its cancellation where |e| << c.
        huber = 2.0 * width * error**2 / (jnp.sqrt(error**2 + width**2) + width)
        return jnp.mean(huber.reshape(huber.shape[0], -1), axis=-1)

    return criterion
