"""Whether the inner maximisation still finds the worst: a detector of catastrophic overfitting.

A network that is trained against one large step (FGSM) can learn to bend just where that step ends: its loss under FGSM is
small, and under many small steps large (Wong et al. 2020, arXiv 2001.03994, and Andriushchenko & Flammarion 2020, 2007.02617,
for classifiers). The second term is therefore compared for perturbations of the same radius at the same (t, eps).

A cutoff's weight is all but zero at most of the times that training draws. Times are therefore drawn with a density kappa
times that of training, and the term is divided by kappa: its mean is that of training up to a factor that all share.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.ball import Ball
from advdiff_jax.perturbation.random import random

PGD_STEPS = 10
# To the edge of the ball along the gradient of the denoising loss, which a plain backward pass gives for nothing (Shafahi et
# al. 2019, arXiv 1904.12843); for an objective that maximises "denoising".
FREE_STEPS, FREE_STEP_SIZE = 1, 1.0


def where_it_acts(kappa: jax.Array, count: int) -> jax.Array:
    """Indices [count] of entries of `kappa` [N] >= 0, each as often as its share of the sum; ascending, without chance."""
    cumulative = jnp.cumsum(kappa) / jnp.sum(kappa)
    return jnp.minimum(jnp.searchsorted(cumulative, (jnp.arange(count) + 0.5) / count), len(kappa) - 1)


def second_terms(
    build: Callable[..., Callable],
    ball: Ball,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    keys: jax.Array,
    x0: jax.Array,
    t: jax.Array,
    kappa: jax.Array,
) -> dict[str, jax.Array]:
    """The second term over kappa under five perturbations, of the same radius at the same (t, eps); pure.

    Args:
        build: () -> the objective of training (`objectives.equivariance`), `perturb=` and `maximize=` instead of its own.
        ball: the set of perturbations.
        predict: (x [B, ...], t [B]) -> prediction.
        keys: typed keys [B], of eps, the radius and the start of the ascent.
        x0: data, [B, ...].
        t: times [B], chosen by `where_it_acts`.
        kappa: strength of the term there, [B].

    Returns:
        "fgsm" (the configured one), "pgd10", "random", "free" and "worst10" (ten steps on the violation itself, whatever
        training maximises: a shift as large as can be need not violate most) -> [B].
    """
    pgd = adversarial(ball, PGD_STEPS, step_length(PGD_STEPS), random_start=True)
    objectives = {
        "fgsm": build(),
        "pgd10": build(perturb=pgd),
        "worst10": build(perturb=pgd, maximize="violation"),
        "random": build(perturb=random(ball)),
        "free": build(perturb=adversarial(ball, FREE_STEPS, FREE_STEP_SIZE, random_start=False), maximize="denoising"),
    }
    return {name: objective(predict, keys, x0, t)[1]["regularizer"] / kappa for name, objective in objectives.items()}


def ratios(found: dict[str, jax.Array]) -> dict[str, float]:
    """Means over examples of `second_terms` over that of "fgsm": `inner_NAME_over_fgsm` for each other name."""
    mean = {name: float(jnp.mean(values)) for name, values in found.items()}
    tiny = float(jnp.finfo(jnp.float32).tiny)  # a network that violates nothing has nothing to hide
    return {f"inner_{name}_over_fgsm": value / max(mean["fgsm"], tiny) for name, value in mean.items() if name != "fgsm"}


def warning(results: dict[str, float], threshold: float) -> str:
    """One line if PGD finds more than `threshold` times what training did; "" if not, or if nothing was measured."""
    ratio = results.get("inner_pgd10_over_fgsm", 0.0)
    if ratio <= threshold:
        return ""
    return (
        f"catastrophic overfitting: ten steps find {ratio:.3g} times the second term that training sees (more than "
        f"config.evaluation.overfitting_ratio={threshold:g}); raise config.robust.attack_steps, or lower the radius"
    )
