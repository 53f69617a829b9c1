r"""Robust_ran and Robust_adv, the paper's objective (arXiv 2505.21742, eq. 9), and its control.

    L = || eps_th(x_t, t) - eps ||^2  +  lambda_t || eps_th(x_t + delta, t) - [ eps_th(x_t, t) + delta / sigma(t) ] ||^2

The state moves by delta, the target by w = delta / sigma(t): the noise eps + w would have given x_t + delta. In any
parameterisation the target is linear in (x0, eps), so the same is said by moving the prediction by target(0, w), and the
control (the classifier's adversarial training, which must fail here) by target(delta / alpha, 0):

    equivariance   blames the noise for a shift of the state: x0hat stays, eps_th moves by delta / sigma
    invariance     blames the data:                           eps_th stays, x0hat moves by delta / alpha

What the ascent looks for decides which directions the term smooths. The best predictor of Gaussian data of variance s^2 in a
direction is eps_th = a x with a = sigma / (alpha^2 s^2 + sigma^2): the shift a delta is largest where the data vary least, the
noise, and the violation (1 / sigma - a) delta where they vary most, the signal. The paper maximises the shift, which is why it
works.

One draw (t, eps) serves the clean term, the inner maximisation and the outer term; eps_th(x_t, t) is computed once.

The radius and the weight are functions of noise-to-signal in VP units; `schedule.scale` carries delta to the process at
hand, so kappa = lambda_t E[w^2] is the same in all of them. A learnt variance (`variance_loss`) is left out of the second term.

The second term costs 5/3 of a plain step, and a weight with a cutoff leaves most of a batch without one: in DDPM's process one
example in 37 has u < 0.1. So one of m examples can stand for all of them:

    example i with chance P(i) = kappa_i / sum_j kappa_j,  its term 1 / P(i) times as heavy,    i, j among m in a row

at 1/m of the cost. The gradient has the same expectation in every step, up to the clipping of its norm, so that Adam needs no
correction; and where at most one of the m has a weight at all it is the very same.
"""

import functools

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.objectives.denoising import Criterion, VarianceLoss, add_noise, mean_square, no_variance, square
from advdiff_jax.objectives.weights import Weight
from advdiff_jax.perturbation.adversarial import Perturb
from advdiff_jax.perturbation.radius import Radius

MAXIMIZE = ("shift", "violation", "denoising")


def _one_of_each(keys, kappa, m):
    """Of each m examples in a row one, in proportion to kappa [B]: its place, and 1 / its chance, [B / m] each."""
    kappa = kappa.reshape(-1, m)
    chosen = jax.vmap(jax.random.categorical)(keys[::m], jnp.log(kappa))
    heavy = jnp.take_along_axis(kappa, chosen[:, None], axis=1)[:, 0]
    stands_for = jnp.sum(kappa, axis=1) / jnp.where(heavy > 0.0, heavy, 1.0)  # nothing is drawn at 0 but where all are: 0 / 1
    return m * jnp.arange(len(chosen)) + chosen, stands_for


def equivariance(
    schedule: Schedule,
    parameterization: Parameterization,
    radius: Radius,
    perturb: Perturb,
    weight: Weight,
    maximize: str = "shift",
    blame: str = "noise",
    variance_loss: VarianceLoss = no_variance,
    one_in: int = 1,
    criterion: Criterion = square,
):
    """Builds the objective of the module docstring; both norms are means over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        radius: budget of delta over time.
        perturb: `perturbation.random` (Robust_ran) or `perturbation.adversarial` (Robust_adv).
        weight: lambda_t.
        maximize: what an adversarial `perturb` maximises: "shift", the paper's
            J = || eps_th(x_t + delta) - sg[eps_th(x_t)] ||^2; "violation", the second term itself; or "denoising", the first
            term at x_t + delta, whose gradient at delta = 0 a plain backward pass gives for nothing.
        blame: "noise" (equivariance) or "data" (invariance, the control).
        variance_loss: terms to add for a learnt variance, as for `denoising`.
        one_in: m; 1 computes the second term on all examples.
        criterion: of the first term's error, as for `denoising`; the second term is a mean square.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B]) -> (loss [B], aux); `violation` [B / m] of the examples chosen, which
        are predicted with `predict(x, t, rows=rows)` where m > 1: `rows` [B / m] are their places in the batch, for dropout.

    Raises:
        ValueError: unknown `maximize` or `blame`, or `one_in` < 1; when called, a batch that `one_in` does not divide.
    """
    if one_in < 1:
        raise ValueError(f"need one_in >= 1, got {one_in}")
    if maximize not in MAXIMIZE or blame not in ("noise", "data"):
        raise ValueError(f"need maximize in {MAXIMIZE} and blame in ('noise', 'data'), got {maximize!r}, {blame!r}")

    def objective(predict, keys, x0, t):
        if len(t) % one_in:
            raise ValueError(f"a batch of {len(t)} cannot be divided by one_in={one_in}")
        keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 4))(keys), 1, 0)
        noise_keys, radius_keys, perturb_keys, choice_keys = keys
        noised = add_noise(schedule, parameterization, noise_keys, x0, t)
        prediction, variance = split_variance(predict(noised.x, t), noised.x)
        denoising = criterion(prediction - noised.target, t)
        extra = variance_loss(prediction, variance, noised, x0, t)

        u = schedule.noise_to_signal(t)
        r = radius.sample(radius_keys, u)
        bound = radius.to_state(r, u) * schedule.scale(t)
        rows, stands_for = slice(None), 1.0
        if one_in > 1:
            energy = (bound / schedule.sigma(t)) ** 2
            rows, stands_for = _one_of_each(choice_keys, weight(u, r, energy) * energy, one_in)
            predict = functools.partial(predict, rows=rows)
        x, target, alpha, sigma = (value[rows] for value in noised)
        clean, at = prediction[rows], t[rows]

        def moved(prediction, delta):
            """What `prediction` should become when the state moves by delta."""
            signal, noise = (0.0 * delta, delta / sigma) if blame == "noise" else (delta / alpha, 0.0 * delta)
            return prediction + parameterization.target(signal, noise, alpha, sigma)

        def inner(moved_x):
            prediction, anchor = split_variance(predict(moved_x, at), x)[0], jax.lax.stop_gradient(clean)
            if maximize == "denoising":
                return criterion(prediction - target, at)
            if maximize == "violation":
                return mean_square(prediction - moved(anchor, moved_x - x))
            eps = parameterization.invert(prediction, moved_x, alpha, sigma).eps
            return mean_square(eps - parameterization.invert(anchor, x, alpha, sigma).eps)

        delta = perturb(perturb_keys[rows], inner, x, bound[rows])
        violation = mean_square(split_variance(predict(x + delta, at), x)[0] - moved(clean, delta))
        term = stands_for * weight(u[rows], r[rows], mean_square(delta / sigma)) * violation
        regularizer = jnp.repeat(term / one_in, one_in)  # of the m examples that it stands for, in equal parts
        aux = {"denoising": denoising, "violation": violation, "regularizer": regularizer, **extra}
        return sum(extra.values(), denoising + regularizer), aux

    return objective
