r"""The Jacobian form of Robust_ran: its limit for a small radius, by one `jax.jvp` and no radius in the network's input.

    L = || eps_th(x_t, t) - eps ||^2  +  lambda_t E[w^2] || sigma J v - v ||^2,     J = d eps_th / dx at x_t,  v Rademacher

The second term of `equivariance` at delta = sigma w is || J delta - w ||^2 up to higher orders, and for a random w with
independent coordinates its mean is E[w^2] times that of a Rademacher v. Radius, ball and weight are those of Robust_ran
(there E[w^2] is that of the ball's draw), so kappa = lambda_t E[w^2] is the same in both; only the radius no longer blurs the
network. In any parameterisation v is to become target(0, v), as in `equivariance`. The jvp returns eps_th(x_t, t) as well.
"""

import math

import jax
import jax.numpy as jnp

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
        radius: budget over time of the delta that Robust_ran would draw.
        ball: the set that it would draw from.
        weight: lambda_t.
        variance_loss: terms to add for a learnt variance, as for `denoising`; not in the second term.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B]) -> (loss [B], aux); aux `violation` is the second norm itself.
    """

    def objective(predict, keys, x0, t):
        noise_keys, radius_keys, probe_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
        noised = add_noise(schedule, parameterization, noise_keys, x0, t)
        x, target, alpha, sigma = noised
        v = jax.vmap(lambda key, one: jax.random.rademacher(key, one.shape, one.dtype))(probe_keys, x)
        outputs = jax.jvp(lambda state: predict(state, t), (x,), (sigma * v,))
        (prediction, variance), (tangent, _) = (split_variance(output, x) for output in outputs)
        denoising = mean_square(prediction - target)
        violation = mean_square(tangent - parameterization.target(0.0 * v, v, alpha, sigma))

        u = schedule.noise_to_signal(t)
        r = radius.sample(radius_keys, u)
        # E[w^2] of Robust_ran's draw, w = delta / sigma.
        energy = ball.energy(radius.to_state(r, u) * schedule.scale(t), math.prod(x.shape[1:])) / schedule.sigma(t) ** 2
        regularizer = weight(u, r, energy) * energy * violation
        extra = variance_loss(prediction, variance, noised, x0, t)
        loss = sum(extra.values(), denoising + regularizer)
        return loss, {"denoising": denoising, "violation": violation, "regularizer": regularizer, **extra}

    return objective
