"""Detects catastrophic overfitting: a network on which the inner maximisation no longer finds the worst perturbation.

A network that trains against one large step (FGSM) can learn to bend just where that step ends: its loss is small under FGSM,
and large under many small steps (Wong et al. 2020, arXiv 2001.03994, and Andriushchenko & Flammarion 2020, 2007.02617, for
classifiers). The detector therefore compares the penalty under perturbations of the same radius at the same (t, eps).

A cutoff's weight almost vanishes at most times that training draws. The detector therefore draws times with kappa times the
density of training, and divides the penalty by kappa: its mean is that of training up to a factor that all perturbations share.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.ball import Ball
from advdiff_jax.perturbation.random import random

PGD_STEPS = 10
# One step to the edge of the ball, along the gradient of the denoising loss, which a plain backward pass gives at no cost
# (Shafahi et al. 2019, arXiv 1904.12843); for an objective that maximises "denoising".
FREE_STEPS, FREE_STEP_SIZE = 1, 1.0


def where_it_acts(kappa: jax.Array, count: int) -> jax.Array:
    """Returns indices [count] into `kappa` [N] >= 0, each as often as its share of the sum; ascending, deterministic."""
    cumulative = jnp.cumsum(kappa) / jnp.sum(kappa)
    return jnp.minimum(jnp.searchsorted(cumulative, (jnp.arange(count) + 0.5) / count), len(kappa) - 1)


def penalties(
    build: Callable[..., Callable],
    ball: Ball,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    keys: jax.Array,
    x0: jax.Array,
    t: jax.Array,
    kappa: jax.Array,
) -> dict[str, jax.Array]:
    """Computes the penalty over kappa under five perturbations, of the same radius at the same (t, eps); pure.

    Args:
        build: () -> the objective of training (`objectives.robust`), `perturb=` and `maximize=` instead of its own.
        ball: the set of perturbations.
        predict: (x [B, ...], t [B]) -> prediction.
        keys: typed keys [B], of eps, the radius and the start of the ascent.
        x0: data, [B, ...].
        t: times [B], chosen by `where_it_acts`.
        kappa: strength of the penalty there, [B].

    Returns:
        "fgsm" (the configured perturbation), "pgd10", "random", "free" and "worst10" (ten steps on the residual itself,
        whatever training maximises: the largest shift need not have the largest residual) -> [B].
    """
    pgd = adversarial(ball, PGD_STEPS, step_length(PGD_STEPS), random_start=True)
    objectives = {
        "fgsm": build(),
        "pgd10": build(perturb=pgd),
        "worst10": build(perturb=pgd, maximize="residual"),
        "random": build(perturb=random(ball)),
        "free": build(perturb=adversarial(ball, FREE_STEPS, FREE_STEP_SIZE, random_start=False), maximize="denoising"),
    }
    return {name: objective(predict, keys, x0, t)[1]["penalty"] / kappa for name, objective in objectives.items()}


def ratios(found: dict[str, jax.Array]) -> dict[str, float]:
    """Computes the means of `penalties` over examples, over that of "fgsm": `overfitting_NAME_over_fgsm` by name."""
    mean = {name: float(jnp.mean(values)) for name, values in found.items()}
    tiny = float(jnp.finfo(jnp.float32).tiny)  # a network without any residual hides nothing
    return {f"overfitting_{name}_over_fgsm": value / max(mean["fgsm"], tiny) for name, value in mean.items() if name != "fgsm"}


def warning(results: dict[str, float], threshold: float) -> str:
    """Returns a line if PGD finds more than `threshold` times the penalty of training; "" if not, or without a measurement."""
    ratio = results.get("overfitting_pgd10_over_fgsm", 0.0)
    if ratio <= threshold:
        return ""
    return (
        f"catastrophic overfitting: ten steps find {ratio:.3g} times the penalty that training sees (more than "
        f"config.evaluation.overfitting_ratio={threshold:g}); raise config.robust.attack_steps, or lower the radius"
    )
