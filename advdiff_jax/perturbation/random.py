"""Robust_ran: a uniform draw from the ball."""

import jax

from advdiff_jax.perturbation.ball import Ball


def random(ball: Ball):
    """Builds `perturb(keys, objective, x, radius) -> delta`, delta ~ U(ball) (paper: delta ~ U[-r, r]^d).

    The signature is that of `adversarial`; the objective is ignored.
    """

    def perturb(keys, objective, x, radius):
        del objective
        return jax.vmap(lambda key, r: ball.sample(key, x.shape[1:], r))(keys, radius)

    return perturb
