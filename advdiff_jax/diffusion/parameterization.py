r"""What the network predicts: eps, x0, v, the score, the flow or EDM's F; and the way from one to the others.

With x_t = alpha x0 + sigma eps, every prediction is a linear function of (x0, eps), its `target`:

    eps      eps                       (Ho et al. 2020)
    x0       x0
    v        alpha eps - sigma x0      (Salimans & Ho 2022)
    score    -eps / sigma              (Song et al. 2021: grad log p(x_t | x0))
    flow     eps - x0                  (Liu et al. 2022: the velocity of the straight path)
    edm      (x0 - c_skip y) / c_out,  y = x0 + u eps, u = sigma / alpha      (Karras et al. 2022: F; see `edm`)

Linearity does more than the loss needs. A shift of the state by delta with x0 held fixed is a shift of the noise by
w = delta / sigma, so an equivariant network's prediction moves by `target(x0=0, eps=w)`: delta / sigma for eps, 0 for
x0, alpha delta / sigma for v, -delta / sigma^2 for the score, delta / sigma for the flow, -c_skip delta / (alpha c_out) for
edm. In each of them x0hat stays where it is: invariance of x0hat is the common form. At a fixed x_t an error of the
prediction is a multiple of the error of x0hat that depends on t alone, so the two terms of the objective keep their ratio,
and kappa its meaning, in every one of them.

The network itself sees the state in the units of the variance-preserving process, x / sqrt(alpha^2 + sigma^2), whatever
the process (`inputs`); for edm, x / sqrt(data_std^2 alpha^2 + sigma^2), which is c_in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule, bcast


class Denoised(NamedTuple):
    """Estimates of the clean data and of the noise in x_t, both of its shape: x_t = alpha x0 + sigma eps.

    Attributes:
        variance: a network that learns its variance (Improved-DDPM) puts its raw output here, of the same shape.
    """

    x0: jax.Array
    eps: jax.Array
    variance: jax.Array | None = None


class Parameterization(NamedTuple):
    """Pure functions; alpha and sigma are arrays that broadcast against the data.

    Attributes:
        target: (x0, eps, alpha, sigma) -> what the network should predict; linear in (x0, eps).
        invert: (prediction, x_t, alpha, sigma) -> `Denoised`, the (x0, eps) with that target and that x_t.
        data_std: what the network's input is scaled for: it sees x / sqrt(data_std^2 alpha^2 + sigma^2).
    """

    target: Callable[..., jax.Array]
    invert: Callable[..., Denoised]
    data_std: float = 1.0


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
    "flow": Parameterization(
        lambda x0, eps, alpha, sigma: eps - x0,
        lambda flow, x, alpha, sigma: Denoised((x - sigma * flow) / (alpha + sigma), (x + alpha * flow) / (alpha + sigma)),
    ),
}


def edm(data_std: float = 0.5) -> Parameterization:
    r"""EDM's preconditioning (Karras et al. 2022, table 1): x0hat = c_skip y + c_out F(c_in y), y = x_t / alpha.

        c_skip = d^2 / (u^2 + d^2)     c_out = u d / sqrt(u^2 + d^2)     c_in = 1 / sqrt(u^2 + d^2)     d = data_std

    The network's F predicts (x0 - c_skip y) / c_out. EDM's loss weight 1 / c_out^2 on the error of x0hat is a weight of 1
    on the error of F, which is what the objectives minimise.

    Args:
        data_std: standard deviation of the data, sigma_data in EDM.

    Raises:
        ValueError: `data_std` is not positive.
    """
    if data_std <= 0.0:
        raise ValueError(f"data_std must be positive, got {data_std}")

    def coefficients(alpha, sigma):
        u = sigma / alpha
        norm = u**2 + data_std**2
        return data_std**2 / norm, u * data_std / jnp.sqrt(norm)

    def target(x0, eps, alpha, sigma):
        skip, out = coefficients(alpha, sigma)
        return (x0 - skip * (x0 + sigma / alpha * eps)) / out

    def invert(prediction, x, alpha, sigma):
        skip, out = coefficients(alpha, sigma)
        x0 = skip * x / alpha + out * prediction
        # (x - alpha x0) / sigma with x0 put in: nothing cancels where sigma is small.
        eps = (sigma / alpha) * x / alpha / ((sigma / alpha) ** 2 + data_std**2) - alpha / sigma * out * prediction
        return Denoised(x0, eps)

    return Parameterization(target, invert, data_std)


TIME_INPUTS = {
    "t": lambda schedule, t: t,
    # EDM's c_noise; the floor is the value at t_min of a discrete grid, where log 0 would follow.
    "log_noise": lambda schedule, t: 0.25 * jnp.log(jnp.maximum(schedule.noise_to_signal(t), 1e-5)),
}


def inputs(schedule: Schedule, parameterization: Parameterization, time_input: str = "t") -> Callable:
    """What the network sees: (x_t [B, ...], t [B]) -> (state in units of about 1 [B, ...], time feature [B]).

    Args:
        schedule: alpha and sigma.
        parameterization: its `data_std` sets the scale.
        time_input: "t", or "log_noise" for EDM's c_noise = log(sigma / alpha) / 4.
    """
    time = TIME_INPUTS[time_input]

    def of(x, t):
        if parameterization.data_std == 1.0:
            scale = schedule.scale(t)  # exactly 1 for a variance-preserving process
        else:
            scale = jnp.hypot(parameterization.data_std * schedule.alpha(t), schedule.sigma(t))
        return x / bcast(scale, x), time(schedule, t)

    return of


def split_variance(prediction: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The prediction, and the raw variance output of a network that has twice the channels of x; None for others."""
    channels = x.shape[-1]
    return prediction[..., :channels], prediction[..., channels:] if prediction.shape[-1] > channels else None


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
        predict: (x [B, ...], t [B]) -> prediction [B, ...], of twice the channels if the variance is learnt.
        clip: x0 is clipped to [-clip, clip] and eps recomputed from it, as DDPM's sampler does on pictures; None: not.
    """

    def denoise(x, t):
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        prediction, variance = split_variance(predict(x, t), x)
        estimate = parameterization.invert(prediction, x, alpha, sigma)
        if clip is not None:
            estimate = _from_x0(jnp.clip(estimate.x0, -clip, clip), x, alpha, sigma)
        return estimate._replace(variance=variance)

    return denoise
