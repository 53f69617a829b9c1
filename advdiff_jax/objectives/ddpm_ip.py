r"""DDPM-IP, input perturbation (Ning et al. 2023, arXiv 2301.11706): adds more noise to the state than to the target.

    || eps_th(y_t, t) - eps ||^2,     y_t = alpha x0 + sigma (eps + gamma xi),     xi ~ N(0, I)

The state moves by sigma gamma xi and the target does not: the invariance counterpart of Robust_ran, at the cost of
plain denoising. Its optimum on Gaussian data of variance s^2 is eps_th(x) = sigma x / (alpha^2 s^2 + sigma^2 (1 + gamma^2)).
"""

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import VarianceLoss, add_noise, mean_square, no_variance


def ddpm_ip(
    schedule: Schedule, parameterization: Parameterization, gamma: float = 0.1, variance_loss: VarianceLoss = no_variance
):
    """Builds the objective of the module docstring, a mean over dimensions; any parameterisation keeps its target(x0, eps).

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        gamma: standard deviation of the perturbation over the noise's; 0.1 is the paper's best on CIFAR-10.
        variance_loss: terms to add for a learnt variance, as for `denoising`.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B]) -> (loss [B], aux).

    Raises:
        InvalidArgument: `gamma` is negative.
    """
    if gamma < 0.0:
        raise InvalidArgument(f"need gamma >= 0, got {gamma}")

    def objective(predict, keys, x0, t):
        noise_keys, shift_keys = rng.split(keys, 2)
        noised = add_noise(schedule, parameterization, noise_keys, x0, t)
        noised = noised._replace(x=noised.x + noised.sigma * gamma * rng.normal(shift_keys, x0))
        prediction, variance = split_variance(predict(noised.x, t), noised.x)
        loss = mean_square(prediction - noised.target)
        extra = variance_loss(prediction, variance, noised, x0, t)
        return sum(extra.values(), loss), {"denoising": loss, **extra}

    return objective
