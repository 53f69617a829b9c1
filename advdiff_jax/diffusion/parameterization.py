r"""Parameterisations: a network predicts eps, x0, v, the score, the flow or EDM's F; each converts to x0hat and eps_hat.

With x_t = alpha x0 + sigma eps, the `target` of every prediction is a linear function of (x0, eps):

    eps      eps                       (Ho et al. 2020)
    x0       x0
    v        alpha eps - sigma x0      (Salimans & Ho 2022)
    score    -eps / sigma              (Song et al. 2021: grad log p(x_t | x0))
    flow     eps - x0                  (Liu et al. 2022: the velocity of the straight path)
    edm      (x0 - c_skip y) / c_out,  y = x0 + u eps, u = sigma / alpha      (Karras et al. 2022: F; see `edm`)

The penalty uses this linearity. A shift of the state by delta with x0 held fixed is a shift of the noise by w = delta / sigma,
so an equivariant network's prediction moves by `target(x0=0, eps=w)`: delta / sigma for eps, 0 for x0, alpha delta / sigma
for v, -delta / sigma^2 for the score, delta / sigma for the flow, -c_skip delta / (alpha c_out) for edm. In all of them x0hat
is invariant. At a fixed x_t the prediction's error is a multiple of the error of x0hat, and the factor depends on t alone. So
denoising term and penalty keep their ratio, and kappa its meaning, in every parameterisation.

The network sees the state in units of the variance-preserving process, x / sqrt(alpha^2 + sigma^2), in every process
(`inputs`); for edm, x / sqrt(data_std^2 alpha^2 + sigma^2), that is c_in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument


class Denoised(NamedTuple):
    """Estimates of the clean data and of the noise in x_t, both with the shape of x_t: x_t = alpha x0 + sigma eps.

    Attributes:
        x0: estimate of the clean data.
        eps: estimate of the noise.
        variance: raw variance output, of the same shape, if the network learns its variance (Improved-DDPM).
    """

    x0: jax.Array
    eps: jax.Array
    variance: jax.Array | None = None


class Parameterization(NamedTuple):
    """Pure functions; alpha and sigma are arrays that broadcast against the data.

    Attributes:
        target: (x0, eps, alpha, sigma) -> the target of the network's prediction; linear in (x0, eps).
        invert: (prediction, x_t, alpha, sigma) -> `Denoised`, the (x0, eps) with this target and this x_t.
        data_std: scale of the network's input, which is x / sqrt(data_std^2 alpha^2 + sigma^2).
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
    r"""Builds EDM's preconditioning (Karras et al. 2022, table 1): x0hat = c_skip y + c_out F(c_in y), y = x_t / alpha.

        c_skip = d^2 / (u^2 + d^2)     c_out = u d / sqrt(u^2 + d^2)     c_in = 1 / sqrt(u^2 + d^2)     d = data_std

    The network's F predicts (x0 - c_skip y) / c_out. The objectives minimise the error of F with weight 1, which equals EDM's
    loss weight 1 / c_out^2 on the error of x0hat.

    Args:
        data_std: standard deviation of the data, sigma_data in EDM.

    Raises:
        InvalidArgument: `data_std` is not positive.
    """
    if data_std <= 0.0:
        raise InvalidArgument(f"data_std={data_std} must be positive")

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
        # (x - alpha x0) / sigma with x0 substituted, so that nothing cancels where sigma is small.
        eps = (sigma / alpha) * x / alpha / ((sigma / alpha) ** 2 + data_std**2) - alpha / sigma * out * prediction
        return Denoised(x0, eps)

    return Parameterization(target, invert, data_std)


TIME_INPUTS = {
    "step": lambda schedule, t: t - schedule.t_min,
    "t": lambda schedule, t: t,
    # EDM's c_noise. The floor keeps the logarithm finite at t = 0.
    "log_noise": lambda schedule, t: 0.25 * jnp.log(jnp.maximum(schedule.noise_to_signal(t), 1e-5)),
    # DDPM's index of the time t = (index + 1) / T, which its networks see; 0 at less noise than the grid has.
    "ddpm_index": lambda schedule, t: jnp.maximum(t * schedule.num_steps - 1.0, 0.0),
}


def inputs(schedule: Schedule, parameterization: Parameterization, time_input: str = "t") -> Callable:
    """Builds the network's inputs: (x_t [B, ...], t [B]) -> (state in units of about 1 [B, ...], time feature [B]).

    Args:
        schedule: alpha and sigma.
        parameterization: `data_std` sets the scale.
        time_input: "step" counts from the smallest time, as DDPM counts n - 1 = 0 .. T - 1 (here over T) on its grid; "t";
            "log_noise" for EDM's c_noise = log(sigma / alpha) / 4; "ddpm_index" for n - 1 itself, on that
            grid.
    """
    time = TIME_INPUTS[time_input]

    def of(x, t):
        if parameterization.data_std == 1.0:
            scale = schedule.scale(t)  # exactly 1 in a variance-preserving process
        else:
            scale = jnp.hypot(parameterization.data_std * schedule.alpha(t), schedule.sigma(t))
        return x / bcast(scale, x), time(schedule, t)

    return of


def split_variance(prediction: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Splits off the raw variance output of a network with twice the channels of x; None for other networks."""
    channels = x.shape[-1]
    return prediction[..., :channels], prediction[..., channels:] if prediction.shape[-1] > channels else None


def denoiser(
    schedule: Schedule,
    parameterization: Parameterization,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    clip: float | None = None,
) -> Callable[[jax.Array, jax.Array], Denoised]:
    """Turns a network's prediction into `denoise(x, t) -> Denoised`, the form that samplers use.

    Args:
        schedule: alpha and sigma.
        parameterization: of the prediction.
        predict: (x [B, ...], t [B]) -> prediction [B, ...], with twice the channels if the variance is learnt.
        clip: x0 is clipped to [-clip, clip] and eps recomputed from x0, as in DDPM's sampler on images; None: no clipping.
    """

    def denoise(x, t):
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        prediction, variance = split_variance(predict(x, t), x)
        estimate = parameterization.invert(prediction, x, alpha, sigma)
        if clip is not None:
            estimate = _from_x0(jnp.clip(estimate.x0, -clip, clip), x, alpha, sigma)
        return estimate._replace(variance=variance)

    return denoise
