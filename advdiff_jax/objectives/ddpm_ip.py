r"""DDPM-IP, input perturbation (Ning et al. 2023, arXiv 2301.11706): a little more noise in the state than in the target.

    || eps_th(y_t, t) - eps ||^2,     y_t = alpha x0 + sigma (eps + gamma xi),     xi ~ N(0, I)

The state moves by sigma gamma xi and the prediction must not: it is the invariance side of Robust_ran, at the cost of
plain denoising. Its optimum on Gaussian data of variance s^2 is eps_th(x) = sigma x / (alpha^2 s^2 + sigma^2 (1 + gamma^2)).
"""

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.objectives.denoising import VarianceLoss, add_noise, mean_square, no_variance, normal


def ddpm_ip(
    schedule: Schedule, parameterization: Parameterization, gamma: float = 0.1, variance_loss: VarianceLoss = no_variance
):
    """Builds the objective of the module docstring, a mean over dimensions; in any parameterisation target(x0, eps) stays.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        gamma: standard deviation of the perturbation over that of the noise; 0.1 is the paper's best on CIFAR-10.
        variance_loss: terms to add for a learnt variance, as for `denoising`.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B]) -> (loss [B], aux).

    Raises:
        ValueError: `gamma` is negative.
    """
    if gamma < 0.0:
        raise ValueError(f"need gamma >= 0, got {gamma}")

    def objective(predict, keys, x0, t):
        noise_keys, shift_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        noised = add_noise(schedule, parameterization, noise_keys, x0, t)
        noised = noised._replace(x=noised.x + noised.sigma * gamma * normal(shift_keys, x0))
        prediction, variance = split_variance(predict(noised.x, t), noised.x)
        loss = mean_square(prediction - noised.target)
        extra = variance_loss(prediction, variance, noised, x0, t)
        return sum(extra.values(), loss), {"denoising": loss, **extra}

    return objective
