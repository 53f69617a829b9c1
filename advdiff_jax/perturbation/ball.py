r"""The sets of allowed perturbations: L-inf and L2 balls.

`radius` is per coordinate in both, so that one schedule serves both:

    linf:  max_i |delta_i| <= radius
    l2:    ||delta||_2 <= radius sqrt(D), i.e. the root mean square of delta is at most radius   (D coordinates)

The L2 convention is that of Wang et al. 2025 (arXiv 2502.17099).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ball(NamedTuple):
    """Pure functions on one example; vmap them over a batch.

    Attributes:
        sample: (key, shape, radius []) -> a uniform draw from the ball, with this shape.
        project: (delta, radius []) -> the point of the ball nearest to delta.
        steepest: gradient -> the direction of steepest ascent with unit per-coordinate radius; 0 if the gradient is 0.
        energy: (radius, number of coordinates) -> E[delta_i^2] of a `sample`.
    """

    sample: Callable[..., jax.Array]
    project: Callable[..., jax.Array]
    steepest: Callable[..., jax.Array]
    energy: Callable[[jax.Array, int], jax.Array]


LINF = Ball(
    sample=lambda key, shape, radius: jax.random.uniform(key, shape, minval=-radius, maxval=radius),
    project=lambda delta, radius: jnp.clip(delta, -radius, radius),
    steepest=jnp.sign,
    energy=lambda radius, size: radius**2 / 3.0,
)


def _rms(x):
    return jnp.sqrt(jnp.mean(x**2))


def _l2_sample(key, shape, radius):
    direction_key, radial_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, shape)
    size = math.prod(shape)  # the radial density is proportional to r^(D - 1)
    return radius * jax.random.uniform(radial_key) ** (1.0 / size) * direction / _rms(direction)


def _l2_project(delta, radius):
    # The divisor is at least the smallest normal number, so delta = 0 and radius = 0 are safe.
    return delta * jnp.minimum(1.0, radius / jnp.maximum(_rms(delta), jnp.finfo(delta.dtype).tiny))


def _l2_steepest(gradient):
    # Scaled by the largest entry first, because squares of small gradients underflow. 0 / tiny keeps a zero gradient zero.
    tiny = jnp.finfo(gradient.dtype).tiny
    scaled = gradient / jnp.maximum(jnp.max(jnp.abs(gradient)), tiny)
    return scaled / jnp.maximum(_rms(scaled), tiny)


L2 = Ball(
    sample=_l2_sample,
    project=_l2_project,
    steepest=_l2_steepest,
    energy=lambda radius, size: radius**2 * size / (size + 2.0),
)

BALLS = {"linf": LINF, "l2": L2}
