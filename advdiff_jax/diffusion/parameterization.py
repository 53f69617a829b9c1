r"""What the network predicts: eps, x0, v or the score; and the way from one to the others.

With x_t = alpha x0 + sigma eps, every prediction is a linear function of (x0, eps), its `target`:

    eps      eps                       (Ho et al. 2020)
    x0       x0
    v        alpha eps - sigma x0      (Salimans & Ho 2022)
    score    -eps / sigma              (Song et al. 2021: grad log p(x_t | x0))

Linearity does more than the loss needs. A shift of the state by delta with x0 held fixed is a shift of the noise by
w = delta / sigma, so an equivariant network's prediction moves by `target(x0=0, eps=w)`: delta / sigma for eps, 0 for
x0, alpha delta / sigma for v. In each of them x0hat stays where it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule, bcast


class Denoised(NamedTuple):
    """Estimates of the clean data and of the noise in x_t, both of its shape: x_t = alpha x0 + sigma eps."""

    x0: jax.Array
    eps: jax.Array


class Parameterization(NamedTuple):
    """Two pure functions; alpha and sigma are arrays that broadcast against the data.

    Attributes:
        target: (x0, eps, alpha, sigma) -> what the network should predict; linear in (x0, eps).
        invert: (prediction, x_t, alpha, sigma) -> `Denoised`, the (x0, eps) with that target and that x_t.
    """

    target: Callable[..., jax.Array]
    invert: Callable[..., Denoised]


def _from_eps(eps, x, alpha, sigma):
    return Denoised((x - sigma * eps) / alpha, eps)


def _from_x0(x0, x, alpha, sigma):
    return Denoised(x0, (x - alpha * x0) / sigma)


def _from_v(v, x, alpha, sigma):
    norm = alpha**2 + sigma**2  # 1 for a VP process
    return Denoised((alpha * x - sigma * v) / norm, (sigma * x + alpha * v) / norm)


PARAMETERIZATIONS = {
    "eps": Parameterization(lambda x0, eps, alpha, sigma: eps, _from_eps),
    "x0": Parameterization(lambda x0, eps, alpha, sigma: x0, _from_x0),
    "v": Parameterization(lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0, _from_v),
    "score": Parameterization(
        lambda x0, eps, alpha, sigma: -eps / sigma,
        lambda score, x, alpha, sigma: _from_eps(-sigma * score, x, alpha, sigma),
    ),
}


def denoiser(
    schedule: Schedule,
    parameterization: Parameterization,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    clip: float | None = None,
) -> Callable[[jax.Array, jax.Array], Denoised]:
    """Turns a network's prediction into `denoise(x, t) -> Denoised`, the form in which samplers use it.

    Args:
        schedule: alpha and sigma.
        parameterization: what `predict` predicts.
        predict: (x [B, ...], t [B]) -> prediction [B, ...].
        clip: x0 is clipped to [-clip, clip] and eps recomputed from it, as DDPM's sampler does on pictures; None: not.
    """

    def denoise(x, t):
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        x0, eps = parameterization.invert(predict(x, t), x, alpha, sigma)
        return Denoised(x0, eps) if clip is None else _from_x0(jnp.clip(x0, -clip, clip), x, alpha, sigma)

    return denoise
