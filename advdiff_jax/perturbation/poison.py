r"""Adversarial poison: moves training data, within a small ball, to the points that a trained network denoises worst.

    x' = argmax_{||x' - x|| <= radius}  E_{t, eps} || eps_th(alpha(t) x' + sigma(t) eps, t) - eps ||^2

by PGD (`perturbation.adversarial`). The expectation is a mean over a few fixed draws of (t, eps) per example (AdvDM, Liang et
al. 2023, arXiv 2302.04578).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.perturbation.adversarial import Perturb


def make_poison(objective: Callable, training_time: Callable, perturb: Perturb, radius: float, draws: int) -> Callable:
    """Builds the pure function `poison(predict, keys [B], x0 [B, ...]) -> x' [B, ...]`; x' is in [-1, 1] if x0 is.

    Args:
        objective: of `objectives.denoising`.
        training_time: u ~ U[0, 1) -> time.
        perturb: of `perturbation.adversarial`.
        radius: per-coordinate budget of x' - x0, in the data's units.
        draws: number of draws of (t, eps) per example, the same at every step of the ascent.

    Raises:
        InvalidArgument: `radius` is negative or `draws` < 1.
    """
    if radius < 0.0:
        raise InvalidArgument(f"radius={radius} must be at least 0")
    if draws < 1:
        raise InvalidArgument(f"draws={draws} must be at least 1")

    def poison(predict, keys, x0):
        start_keys, draw_keys = rng.split(keys, 2)

        def one_draw(x, number):
            time_keys, noise_keys = rng.split(rng.fold_in(draw_keys, number), 2)
            t = training_time(rng.uniform(time_keys))
            return objective(predict, noise_keys, x, t)[0]

        def loss(x):
            return jnp.mean(jax.lax.map(lambda number: one_draw(x, number), jnp.arange(draws)), axis=0)

        limit = jnp.maximum(1.0, jnp.max(jnp.abs(x0)))  # images stay in [-1, 1]; points may lie anywhere
        delta = perturb(start_keys, loss, x0, jnp.full(x0.shape[:1], radius))
        return jnp.clip(x0 + delta, -limit, limit)

    return poison
