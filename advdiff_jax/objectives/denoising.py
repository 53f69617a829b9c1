"""Plain denoising, the objective of DDPM (Ho et al. 2020, eq. 14): || eps_th(x_t, t) - eps ||^2."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule, bcast


class Noised(NamedTuple):
    """A noised batch: x_t, the network's target, and alpha(t), sigma(t) broadcast against x_t."""

    x: jax.Array
    target: jax.Array
    alpha: jax.Array
    sigma: jax.Array


def mean_square(error: jax.Array) -> jax.Array:
    """Averages the squares over all axes but the first: [B, ...] -> [B]."""
    return jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=-1)


def add_noise(schedule: Schedule, parameterization: Parameterization, keys: jax.Array, x0: jax.Array, t: jax.Array) -> Noised:
    """Draws eps from the keys [B] and returns x_t = alpha x0 + sigma eps with its target; x0 [B, ...], t [B]."""
    eps = rng.normal(keys, x0)
    alpha, sigma = bcast(schedule.alpha(t), x0), bcast(schedule.sigma(t), x0)
    return Noised(alpha * x0 + sigma * eps, parameterization.target(x0, eps, alpha, sigma), alpha, sigma)


# (error of the prediction [B, ...], t [B]) -> loss [B].
Criterion = Callable[[jax.Array, jax.Array], jax.Array]


def square(error: jax.Array, t: jax.Array) -> jax.Array:
    """Computes the mean square of the error, the default `Criterion`."""
    del t
    return mean_square(error)


def noise_error(parameterization: Parameterization, prediction: jax.Array, noised: Noised) -> jax.Array:
    """Computes || eps_th - eps ||^2 [B] of a prediction in any parameterisation: 1 if the model explains no noise variance."""
    found, wanted = (
        parameterization.invert(value, noised.x, noised.alpha, noised.sigma).eps for value in (prediction, noised.target)
    )
    return mean_square(jax.lax.stop_gradient(found - wanted))


# (prediction, raw variance output, noised, x0, t) -> terms of the loss, name -> [B].
VarianceLoss = Callable[..., dict[str, jax.Array]]


def no_variance(prediction: jax.Array, variance: None, noised: Noised, x0: jax.Array, t: jax.Array) -> dict[str, jax.Array]:
    """Returns no term: the `VarianceLoss` of a network that does not learn its variance."""
    del prediction, variance, noised, x0, t
    return {}


def denoising(
    schedule: Schedule,
    parameterization: Parameterization,
    variance_loss: VarianceLoss = no_variance,
    criterion: Criterion = square,
):
    """Builds the objective || prediction - target ||^2, a mean over dimensions (module docstring of the package).

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        variance_loss: terms to add for a learnt variance, name -> [B]; see `objectives.variational`.
        criterion: of prediction - target; the mean square by default, see `objectives.pseudo_huber`.
    """

    def objective(predict, keys, x0, t):
        noised = add_noise(schedule, parameterization, keys, x0, t)
        prediction, variance = split_variance(predict(noised.x, t), noised.x)
        loss = criterion(prediction - noised.target, t)
        extra = variance_loss(prediction, variance, noised, x0, t)
        aux = {"denoising": loss, "noise_error": noise_error(parameterization, prediction, noised), **extra}
        return sum(extra.values(), loss), aux

    return objective
