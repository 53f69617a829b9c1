r"""Robust_adv: the inner maximisation by projected gradient ascent (PGD; Madry et al. 2018) with a static number of steps.

    delta_0 ~ U(ball),   delta_{k+1} = project( delta_k + step_size r steepest( grad J(x + delta_k) ) )

One step is FGSM with a random start (Wong et al. 2020), the paper's choice. The start must be random, because the paper's
J(delta) = ||eps_th(x + delta) - eps_th(x)||^2 has a zero gradient at delta = 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.perturbation.ball import Ball

Perturb = Callable[[jax.Array, Callable[[jax.Array], jax.Array], jax.Array, jax.Array], jax.Array]


def step_length(num_steps: int) -> float:
    """Returns the usual step length over the radius: 1.25 for K = 1 (Wong et al. 2020), else 2.5 / K (Madry et al. 2018)."""
    return 2.5 / num_steps if num_steps > 1 else 1.25


def adversarial(ball: Ball, num_steps: int = 1, step_size: float = 1.25, random_start: bool = True) -> Perturb:
    """Builds `perturb(keys, objective, x, radius) -> delta`.

    Args:
        ball: the set of allowed perturbations.
        num_steps: K >= 1 ascent steps; static.
        step_size: step length over the radius, > 0; 1.25 is usual for K = 1.
        random_start: start at a uniform draw from the ball; otherwise at 0.

    Returns:
        perturb, to be compiled as part of a jitted function. It takes
            keys: typed keys [B]; objective: x [B, ...] -> values [B], maximised for each example;
            x: states [B, ...]; radius: state units, [B].
        It returns delta [B, ...] in the ball; no gradient flows through it.

    Raises:
        InvalidArgument: `num_steps` < 1 or `step_size` <= 0.
    """
    if num_steps < 1:
        raise InvalidArgument(f"num_steps={num_steps} must be at least 1")
    if step_size <= 0.0:
        raise InvalidArgument(f"step_size={step_size} must be positive")
    project, steepest = jax.vmap(ball.project), jax.vmap(ball.steepest)

    def perturb(keys, objective, x, radius):
        lengths = (step_size * radius).reshape(radius.shape + (1,) * (x.ndim - 1))
        # Examples do not interact, so the gradient of the sum is the gradient of each example.
        gradient = jax.grad(lambda delta: jnp.sum(objective(x + delta)))

        def ascend(delta, _):
            return project(delta + lengths * steepest(gradient(delta)), radius), None

        def start(key, r):
            return ball.sample(key, x.shape[1:], r) if random_start else jnp.zeros(x.shape[1:], x.dtype)

        delta = jax.vmap(start)(keys, radius)
        if num_steps == 1:  # without a loop XLA fuses the paper's single step with its surroundings and counts its FLOPs
            delta, _ = ascend(delta, None)
        else:
            delta, _ = jax.lax.scan(ascend, delta, length=num_steps)
        return jax.lax.stop_gradient(delta)

    return perturb
