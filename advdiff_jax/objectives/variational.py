r"""Improved-DDPM's learnt variance (Nichol & Dhariwal 2021, section 3.1): L_hybrid = L_simple + weight L_vlb.

The network outputs a raw number for each coordinate, v = (raw + 1) / 2, and the reverse step from t to s has the variance

    exp( v log var_ts + (1 - v) log(var_ts sigma_s^2 / sigma_t^2) )          between DDPM's two choices, in the log domain

L_vlb is T times the term of the variational bound at the drawn step, in bits per dimension: the KL divergence from
q(x_s | x_t, x0) to that Gaussian or, in the last step, -log p(x_0 | x_1). Its gradient does not reach the mean.
"""

import math

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Parameterization
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.diffusion.transition import learnt_log_variance, posterior
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import Noised, VarianceLoss


def variational(
    schedule: Schedule, parameterization: Parameterization, num_steps: int, weight: float = 1e-3, bins: int = 0
) -> VarianceLoss:
    """Builds the term `weight L_vlb` for `denoising` and `robust`.

    Args:
        schedule: DDPM's grid.
        parameterization: what the network predicts.
        num_steps: T of the grid.
        weight: lambda of L_hybrid, 0.001 in Improved-DDPM.
        bins: grey levels of images in [-1, 1] (256), whose probability is the last step's likelihood (DDPM, section 3.3);
            0: the density of x0 instead, for data without levels.

    Returns:
        (prediction, raw variance, noised, x0 [B, ...], t [B]) -> {"variational": [B]}.

    Raises:
        InvalidArgument: `weight` is negative, or `bins` is 1.
    """
    if weight < 0.0 or bins == 1:
        raise InvalidArgument(f"need weight >= 0, and bins=0 or bins >= 2, got {weight} and {bins}")

    def loss(prediction, raw, noised: Noised, x0, t):
        s = jnp.maximum(t - 1.0 / num_steps, 0.0)
        last = t < 1.5 / num_steps
        on_x, on_x0, small, large = posterior(schedule, t, s)
        # The posterior of the last step has variance 0; Improved-DDPM replaces it by that of the step before.
        first = posterior(schedule, jnp.full_like(t, 2.0 / num_steps), jnp.full_like(t, 1.0 / num_steps))
        small = jnp.where(last, first.small, small)
        on_x, on_x0, small, large, last = (bcast(value, x0) for value in (on_x, on_x0, small, large, last))
        frozen = jax.lax.stop_gradient(prediction)
        estimate = parameterization.invert(frozen, noised.x, noised.alpha, noised.sigma).x0
        mean = on_x * noised.x + on_x0 * estimate
        log_var = learnt_log_variance(raw, small, large)
        gap = on_x0 * (estimate - x0)
        divergence = 0.5 * (log_var - jnp.log(small) - 1.0 + (small + gap**2) * jnp.exp(-log_var))
        nats = jnp.where(last, _decoder(x0, mean, log_var, bins), divergence)
        bits = jnp.mean(nats.reshape(nats.shape[0], -1), axis=-1) / math.log(2.0)
        return {"variational": weight * num_steps * bits}

    return loss


def _decoder(x0, mean, log_var, bins):
    """Computes -log p(x0 | x_1) of each coordinate, in nats."""
    if not bins:
        return 0.5 * ((x0 - mean) ** 2 * jnp.exp(-log_var) + log_var + math.log(2.0 * math.pi))
    half, inverse_std = 1.0 / (bins - 1), jnp.exp(-0.5 * log_var)
    below = jnp.where(x0 < -1.0 + half, 0.0, jax.scipy.stats.norm.cdf((x0 - half - mean) * inverse_std))
    above = jnp.where(x0 > 1.0 - half, 1.0, jax.scipy.stats.norm.cdf((x0 + half - mean) * inverse_std))
    return -jnp.log(jnp.maximum(above - below, 1e-12))
