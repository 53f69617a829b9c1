"""A denoiser with its process, learnt or exact: the input of samplers, metrics and figures."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule


class Model(NamedTuple):
    """A trained network's denoiser, or the exact one.

    Attributes:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`.
    """

    schedule: Schedule
    denoise: Callable[[jax.Array, jax.Array], Denoised]
