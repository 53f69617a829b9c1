r"""GSURE (Kawar et al. 2023, arXiv 2305.13128): learns the clean distribution from data that are all noisy, by Stein's lemma.

An example y = x + s z carries Gaussian noise of one known standard deviation s. Let u = sigma / alpha >= s be the
noise-to-signal, y_u = y + sqrt(u^2 - s^2) e the state in VE form, and D the estimate of x. The error against the unknown clean
example is then known up to a constant:

    E || D(y_u) - x ||^2  =  E [ || D(y_u) - y ||^2 + 2 s^2 div D(y_u) ] + constant,     div = sum_i dD_i / d(y_u)_i

because E < D(y_u), s z > = s^2 E div D (Stein). Both norms and the divergence are means over dimensions here. The divergence is
estimated without bias by v . (dD / dy_u) v with one Rademacher v, from one directional derivative.

The loss is the one on the prediction: the error of D times the factor of the parameterisation, for eps (alpha / sigma)^2. On
Gaussian data of variance S^2 a linear D = a y_u has its minimum at the clean posterior mean, a = S^2 / (S^2 + u^2).

An example may have a mask m, 1 where it is known, which the network is not given. Its other pixels start as pure noise,
sigma e, and both terms count the known pixels alone: the error m (D - y), and the divergence by a probe m v.

An example carries no information on u < s. A time drawn there is drawn again above, as in `ambient`. No margin is needed: the
target's variance stays finite at u = s.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import VarianceLoss, mean_square, no_variance
from advdiff_jax.objectives.times import time_above

# noise_to_signal [B] -> factor of 2 div D, [B].
Stein = Callable[[jax.Array], jax.Array]


def exact(noise_std: float) -> Stein:
    """Builds Stein's coefficient, s^2 at every level."""
    return lambda u: jnp.full_like(u, noise_std**2)


def published(scale: float) -> Stein:
    """Builds the coefficient of the authors' code, (1 - abar) Lambda on the divergence in the VP state.

    In VE form it is Lambda u^2 / sqrt(1 + u^2), which is biased. Their settings pair s = 0.02 with Lambda = 1e-4.

    Args:
        scale: Lambda.

    Raises:
        InvalidArgument: `scale` is negative.
    """
    if scale < 0.0:
        raise InvalidArgument(f"need stein_scale >= 0, got {scale}")
    return lambda u: scale * u**2 / jnp.sqrt(1.0 + u**2)


def gsure(
    schedule: Schedule,
    parameterization: Parameterization,
    noise_std: float,
    stein: Stein | None = None,
    variance_loss: VarianceLoss = no_variance,
):
    """Builds the objective of the module docstring.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        noise_std: s of every example, in the data's units.
        stein: factor of the divergence; None: `exact`.
        variance_loss: must be `no_variance`, because the bound on the clean likelihood needs clean data.

    Returns:
        objective(predict, keys [B], y [B, ...], t [B], mask [B, ..., 1] = None) -> (loss [B], aux); `aux` holds the loss as
        `denoising`, and its part `divergence`. A loss may be negative.

    Raises:
        InvalidArgument: `noise_std` is negative, or `variance_loss` is not `no_variance`.
    """
    if noise_std < 0.0:
        raise InvalidArgument(f"need noise_std >= 0, got {noise_std}")
    if variance_loss is not no_variance:
        raise InvalidArgument("GSURE cannot learn the variance: set diffusion.learn_variance=False")
    stein = stein or exact(noise_std)

    def objective(predict, keys, y, t, mask=None):
        known = jnp.ones_like(y) if mask is None else jnp.broadcast_to(mask, y.shape).astype(y.dtype)
        noise_keys, time_keys, probe_keys = rng.split(keys, 3)
        again = time_above(schedule, jnp.full_like(t, noise_std), rng.uniform(time_keys))
        t = jnp.where(schedule.noise_to_signal(t) >= noise_std, t, again)
        u = schedule.noise_to_signal(t)
        usable = u >= noise_std  # a process may end below s
        alpha, sigma = bcast(schedule.alpha(t), y), bcast(schedule.sigma(t), y)

        added = jnp.sqrt(jnp.where(usable, 1.0 - (noise_std / u) ** 2, 1.0))
        x = known * alpha * y + sigma * jnp.where(known, bcast(added, y), 1.0) * rng.normal(noise_keys, y)
        probe = known * jax.vmap(lambda key, one: jax.random.rademacher(key, one.shape, one.dtype))(probe_keys, y)

        def estimate(state):
            prediction, _ = split_variance(predict(state, t), state)
            return parameterization.invert(prediction, state, alpha, sigma).x0

        x0hat, derivative = jax.jvp(estimate, (x,), (alpha * probe,))  # x = alpha y_u
        # A shift of x0hat by 1 at the same state moves the prediction by this.
        factor = mean_square(parameterization.target(jnp.ones_like(y), -alpha / sigma, alpha, sigma))
        divergence = 2.0 * stein(u) * jnp.mean((probe * derivative).reshape(len(t), -1), axis=-1)
        error = mean_square(known * (x0hat - y))
        loss, divergence = (jnp.where(usable, factor * part, 0.0) for part in (error + divergence, divergence))
        return loss, {"denoising": loss, "divergence": divergence}

    return objective
