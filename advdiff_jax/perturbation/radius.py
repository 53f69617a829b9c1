r"""The budget of a perturbation as a function of the noise level.

Paper (arXiv 2505.21742): r(t) = sigma(t)^rho + b, rho = 2, b ~ U[bias_min, bias_max] per example,
at least 8/255, so that the term stays alive as t -> 0. Whether r bounds the shift of the state, delta, or of the
noise, w = delta / sigma, is a choice: `state_units` (the paper's table is reproduced) or `noise_units`.

Both sigma and the state are those of the variance-preserving process, and a function of u = sigma / alpha alone. The
state of another process is `Schedule.scale` times as large, and so is the bound on delta there: the same config means
the same w, and the same kappa, at the same u.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Radius(NamedTuple):
    """A radius schedule.

    Attributes:
        sample: (keys [B], u [B]) -> r [B], in the schedule's own units (those of the paper's weight lambda sqrt(3) / r).
        to_state: (r [B], u [B]) -> the same budget in VP state units [B]: times `Schedule.scale`, a bound on each
            coordinate of delta.
    """

    sample: Callable[[jax.Array, jax.Array], jax.Array]
    to_state: Callable[[jax.Array, jax.Array], jax.Array]


def _sigma(u):
    """The variance-preserving process's sigma at u = sigma / alpha."""
    return u / jnp.hypot(u, 1.0)


def _power_of_sigma(rho, bias_min, bias_max):
    if rho < 0.0 or not 0.0 <= bias_min <= bias_max:
        raise ValueError(
            f"the radius must not be negative: need rho >= 0 and 0 <= bias_min <= bias_max, got {rho}, {bias_min}, {bias_max}"
        )

    def sample(keys, u):
        bias = jax.vmap(lambda key: jax.random.uniform(key, minval=bias_min, maxval=bias_max))(keys)
        return _sigma(u) ** rho + bias

    return sample


def state_units(rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """The paper's schedule: r = sigma^rho + b bounds delta.

    Args:
        rho: exponent of sigma, >= 0.
        bias_min: smallest bias, >= 0.
        bias_max: largest bias, >= `bias_min`.

    Raises:
        ValueError: a radius could be negative.
    """
    return Radius(_power_of_sigma(rho, bias_min, bias_max), lambda r, u: r)


def noise_units(rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """r = sigma^rho + b bounds w = delta / sigma, so delta is bounded by sigma r; arguments as for `state_units`."""
    return Radius(_power_of_sigma(rho, bias_min, bias_max), lambda r, u: _sigma(u) * r)


def constant(value: float) -> Radius:
    """r = `value` at every noise level, in VP state units.

    Raises:
        ValueError: `value` is not positive; a second term with radius 0 would be 0 / 0.
    """
    if value <= 0.0:
        raise ValueError(f"the radius must be positive, got {value}")
    return Radius(lambda keys, u: jnp.full(u.shape, value), lambda r, u: r)
