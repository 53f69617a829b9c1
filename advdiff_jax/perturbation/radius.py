r"""The budget of a perturbation as a function of time.

Paper (arXiv 2505.21742; method.md section 2): r(t) = sigma(t)^rho + b, rho = 2, b ~ U[bias_min, bias_max] per example,
at least 8/255, so that the term stays alive as t -> 0. Whether r bounds the shift of the state, delta, or of the
noise, w = delta / sigma, is a choice: `state_units` (the paper's table is reproduced) or `noise_units`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Radius(NamedTuple):
    """A radius schedule.

    Attributes:
        sample: (keys [B], t [B]) -> r [B], in the schedule's own units (those of the paper's weight lambda sqrt(3) / r).
        to_state: (r [B], t [B]) -> the same budget in state units [B], a bound on each coordinate of delta.
    """

    sample: Callable[[jax.Array, jax.Array], jax.Array]
    to_state: Callable[[jax.Array, jax.Array], jax.Array]


def _power_of_sigma(sigma, rho, bias_min, bias_max):
    if rho < 0.0 or not 0.0 <= bias_min <= bias_max:
        raise ValueError(
            f"the radius must not be negative: need rho >= 0 and 0 <= bias_min <= bias_max, got {rho}, {bias_min}, {bias_max}"
        )

    def sample(keys, t):
        bias = jax.vmap(lambda key: jax.random.uniform(key, minval=bias_min, maxval=bias_max))(keys)
        return sigma(t) ** rho + bias

    return sample


def state_units(sigma: Callable, rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """The paper's schedule: r = sigma(t)^rho + b bounds delta.

    Args:
        sigma: t -> standard deviation of the noise in x_t.
        rho: exponent of sigma, >= 0.
        bias_min: smallest bias, >= 0.
        bias_max: largest bias, >= `bias_min`.

    Raises:
        ValueError: a radius could be negative.
    """
    return Radius(_power_of_sigma(sigma, rho, bias_min, bias_max), lambda r, t: r)


def noise_units(sigma: Callable, rho: float = 2.0, bias_min: float = 8 / 255, bias_max: float = 8 / 255) -> Radius:
    """r = sigma(t)^rho + b bounds w = delta / sigma, so delta is bounded by sigma r; arguments as for `state_units`."""
    return Radius(_power_of_sigma(sigma, rho, bias_min, bias_max), lambda r, t: sigma(t) * r)


def constant(value: float) -> Radius:
    """r = `value` at every time, in state units.

    Raises:
        ValueError: `value` is not positive; a second term with radius 0 would be 0 / 0.
    """
    if value <= 0.0:
        raise ValueError(f"the radius must be positive, got {value}")
    return Radius(lambda keys, t: jnp.full(t.shape, value), lambda r, t: r)
