r"""The Jacobian form of Robust_ran: its small-radius limit, by one `jax.jvp` instead of a perturbed input.

    L = || eps_th(x_t, t) - eps ||^2  +  lambda_t E[w^2] || sigma J v - v ||^2,     J = d eps_th / dx at x_t,  v Rademacher

The residual of `robust` at delta = sigma w is || J delta - w ||^2 up to higher orders. For a random w with independent
coordinates its mean is E[w^2] times the mean for a Rademacher v. Radius, ball and weight are those of Robust_ran, whose draw
from the ball has this E[w^2], so kappa = lambda_t E[w^2] is the same in both. Only the radius no longer blurs the network.
In any parameterisation the target of v is target(0, v), as in `robust`. The jvp returns eps_th(x_t, t) as well.
"""

import math

import jax

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.objectives.denoising import VarianceLoss, add_noise, mean_square, no_variance
from advdiff_jax.objectives.weights import Weight
from advdiff_jax.perturbation.ball import Ball
from advdiff_jax.perturbation.radius import Radius


def jvp(
    schedule: Schedule,
    parameterization: Parameterization,
    radius: Radius,
    ball: Ball,
    weight: Weight,
    variance_loss: VarianceLoss = no_variance,
):
    """Builds the objective of the module docstring; both norms are means over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        radius: budget over time of Robust_ran's delta.
        ball: the set that Robust_ran draws delta from.
        weight: lambda_t.
        variance_loss: terms to add for a learnt variance, as for `denoising`; the penalty leaves it out.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B]) -> (loss [B], aux); aux as for `robust`.
    """

    def objective(predict, keys, x0, t):
        noise_keys, radius_keys, probe_keys = rng.split(keys, 3)
        noised = add_noise(schedule, parameterization, noise_keys, x0, t)
        x, target, alpha, sigma = noised
        v = jax.vmap(lambda key, one: jax.random.rademacher(key, one.shape, one.dtype))(probe_keys, x)
        outputs = jax.jvp(lambda state: predict(state, t), (x,), (sigma * v,))
        (prediction, variance), (tangent, _) = (split_variance(output, x) for output in outputs)
        denoising = mean_square(prediction - target)
        residual = mean_square(tangent - parameterization.target(0.0 * v, v, alpha, sigma))

        u = schedule.noise_to_signal(t)
        r = radius.sample(radius_keys, u)
        # E[w^2] of Robust_ran's draw, w = delta / sigma.
        energy = ball.energy(radius.to_state(r, u) * schedule.scale(t), math.prod(x.shape[1:])) / schedule.sigma(t) ** 2
        penalty = weight(u, r, energy) * energy * residual
        extra = variance_loss(prediction, variance, noised, x0, t)
        loss = sum(extra.values(), denoising + penalty)
        return loss, {"denoising": denoising, "residual": residual, "penalty": penalty, **extra}

    return objective
