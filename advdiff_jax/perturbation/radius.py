r"""The budget of a perturbation as a function of the noise level.

    r(t) = sigma(t)^rho + b,     rho = 2,     b ~ U[bias_min, bias_max] per example     (arXiv 2505.21742)

The paper's b is at least 8/255, so that the penalty does not vanish as t -> 0. `state_units` reads r as a bound on the state's
shift delta, which reproduces the paper's table; `noise_units` reads it as a bound on the noise's shift w = delta / sigma.

Sigma and state are those of the variance-preserving process, as functions of u = sigma / alpha alone. In another process the
state, and the bound on delta with it, is `Schedule.scale` times as large. So one config means the same w, and the same kappa,
at the same u in every process.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument


class Radius(NamedTuple):
    """A radius schedule.

    Attributes:
        sample: (keys [B], u [B]) -> r [B], in the schedule's own units (those of the paper's weight lambda sqrt(3) / r).
        to_state: (r [B], u [B]) -> the same budget in VP state units [B]; times `Schedule.scale` it bounds each coordinate
            of delta.
    """

    sample: Callable[[jax.Array, jax.Array], jax.Array]
    to_state: Callable[[jax.Array, jax.Array], jax.Array]


def _sigma(u):
    """Returns the variance-preserving process's sigma at u = sigma / alpha."""
    return u / jnp.hypot(u, 1.0)


def _power_of_sigma(rho, bias_min, bias_max):
    if rho < 0.0:
        raise InvalidArgument(f"rho={rho} must be at least 0")
    if not 0.0 <= bias_min <= bias_max:
        raise InvalidArgument(f"bias_min={bias_min}, bias_max={bias_max} must satisfy 0 <= bias_min <= bias_max")

    def sample(keys, u):
        bias = jax.vmap(lambda key: jax.random.uniform(key, minval=bias_min, maxval=bias_max))(keys)
        return _sigma(u) ** rho + bias

    return sample


def state_units(rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """Builds the paper's schedule: r = sigma^rho + b bounds delta.

    Args:
        rho: exponent of sigma, >= 0.
        bias_min: smallest bias, >= 0.
        bias_max: largest bias, >= `bias_min`.

    Raises:
        InvalidArgument: `rho` or a bias is negative, or `bias_min` > `bias_max`.
    """
    return Radius(_power_of_sigma(rho, bias_min, bias_max), lambda r, u: r)


def noise_units(rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """Builds r = sigma^rho + b as a bound on w = delta / sigma, so sigma r bounds delta; arguments as for `state_units`."""
    return Radius(_power_of_sigma(rho, bias_min, bias_max), lambda r, u: _sigma(u) * r)


def constant(value: float) -> Radius:
    """Builds r = `value` at every noise level, in VP state units.

    Raises:
        InvalidArgument: `value` is not positive; a penalty with radius 0 would be 0 / 0.
    """
    if value <= 0.0:
        raise InvalidArgument(f"radius={value} must be positive")
    return Radius(lambda keys, u: jnp.full(u.shape, value), lambda r, u: r)
