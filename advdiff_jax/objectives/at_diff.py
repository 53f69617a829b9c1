r"""AT_Diff (Wang et al. ICLR 2025, arXiv 2502.17099): denoising of a perturbed state, anchored on the true noise.

    L(delta) = || eps_th(x_t + delta, t) - ( eps + sg[delta] / sigma(t) ) ||^2

Unlike `robust` it has no clean branch: the target follows the true noise, not the prediction at x_t. In any
parameterisation the target is linear in (x0, eps) and moves by target(0, delta / sigma). The caller chooses delta:
`training.free_adversarial` ascends on it with the gradient that the update of the parameters computes anyway.
"""

import jax

from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.objectives.denoising import VarianceLoss, add_noise, mean_square, no_variance


def at_diff(schedule: Schedule, parameterization: Parameterization, variance_loss: VarianceLoss = no_variance):
    """Builds the objective of the module docstring; the norm is a mean over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        variance_loss: terms to add for a learnt variance, as for `denoising`, at the perturbed state.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B], delta [B, ...]) -> (loss [B], aux); delta in the units of x_t.
        The gradient to delta flows through the network alone (the paper's sg).
    """

    def objective(predict, keys, x0, t, delta):
        noised = add_noise(schedule, parameterization, keys, x0, t)
        still = jax.lax.stop_gradient(delta)
        shift = parameterization.target(0.0 * still, still / noised.sigma, noised.alpha, noised.sigma)
        prediction, variance = split_variance(predict(noised.x + delta, t), noised.x)
        loss = mean_square(prediction - (noised.target + shift))
        moved = noised._replace(x=noised.x + still, target=noised.target + shift)
        extra = variance_loss(prediction, variance, moved, x0, t)
        return sum(extra.values(), loss), {"denoising": loss, **extra}

    return objective
