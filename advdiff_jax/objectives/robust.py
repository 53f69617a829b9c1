r"""Robust_ran and Robust_adv, the paper's objective (arXiv 2505.21742, eq. 9).

    L = || eps_th(x_t, t) - eps ||^2  +  lambda_t || eps_th(x_t + delta, t) - [ eps_th(x_t, t) + delta / sigma(t) ] ||^2

    delta = argmax J(delta) over |delta_i| <= r(t),     J(delta) = || eps_th(x_t + delta, t) - sg[eps_th(x_t, t)] ||^2

The state moves by delta and the target by w = delta / sigma(t), because the noise eps + w would have given x_t + delta. The
second norm is the *equivariance residual*; lambda_t times it is the *penalty*. It makes x0hat invariant to delta:

    || eps_th(x_t + delta) - eps_th(x_t) - delta / sigma ||^2 = (alpha / sigma)^2 || x0hat(x_t + delta) - x0hat(x_t) ||^2

In any parameterisation the target is linear in (x0, eps), so it follows delta by target(x0=0, eps=w).

One draw (t, eps) serves the denoising term, the ascent and the penalty; eps_th(x_t, t) is computed once. Radius and weight
are functions of noise-to-signal u in VP units, and `schedule.scale` carries delta to the process at hand, so
kappa = lambda_t E[w^2] is the same in all of them. A learnt variance (`variance_loss`) is left out of the penalty.

Other files extend this one: `controls` (other shifts of the target and losses to ascend on), `subsample` (the penalty on part
of the batch), `perturbation` (how delta is found), `ambient` (a first norm that knows the noise in the data).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.objectives.denoising import Criterion, Noised, VarianceLoss, add_noise, mean_square, no_variance, square
from advdiff_jax.objectives.weights import Weight
from advdiff_jax.perturbation.adversarial import Perturb
from advdiff_jax.perturbation.radius import Radius


class Point(NamedTuple):
    """Inputs of the penalty: the noised batch, the prediction there, and the budget of delta.

    Attributes:
        noised: x_t, the denoising target, alpha and sigma, as `add_noise` returns them.
        prediction: the network's prediction at x_t, [B, ...].
        t: times [B].
        u: noise-to-signal [B].
        r: radius in its own units, which the weight reads, [B].
        radius: bound on each coordinate of delta, in the units of x_t, [B].
        energy: (radius / sigma)^2, the mean square of w at a corner of the box, [B].
    """

    noised: Noised
    prediction: jax.Array
    t: jax.Array
    u: jax.Array
    r: jax.Array
    radius: jax.Array
    energy: jax.Array


class PenaltyKeys(NamedTuple):
    """Typed keys [B]: of the perturbation, and of the choice of examples (`subsample`)."""

    perturb: jax.Array
    group: jax.Array


# (parameterization, point, delta [B, ...]) -> shift of the prediction's target [B, ...].
Shift = Callable[[Parameterization, Point, jax.Array], jax.Array]
# (predict(x), parameterization, point) -> J(moved x [B, ...]) [B].
AttackLoss = Callable[..., Callable[[jax.Array], jax.Array]]


def shift_of_eps(parameterization: Parameterization, point: Point, delta: jax.Array) -> jax.Array:
    """Returns the shift of the target that keeps x0hat: delta / sigma for a prediction of eps."""
    _, _, alpha, sigma = point.noised
    return parameterization.target(0.0 * delta, delta / sigma, alpha, sigma)


def prediction_shift(predict, parameterization: Parameterization, point: Point) -> Callable[[jax.Array], jax.Array]:
    """Builds the paper's J: || eps_th(moved x) - sg[eps_th(x_t)] ||^2, whose gradient is 0 at delta = 0."""
    x, _, alpha, sigma = point.noised
    anchor = jax.lax.stop_gradient(point.prediction)

    def attack_loss(moved_x):
        eps = parameterization.invert(predict(moved_x), moved_x, alpha, sigma).eps
        return mean_square(eps - parameterization.invert(anchor, x, alpha, sigma).eps)

    return attack_loss


def robust(
    schedule: Schedule,
    parameterization: Parameterization,
    radius: Radius,
    perturb: Perturb,
    weight: Weight,
    *,
    attack_loss: AttackLoss = prediction_shift,
    shift_of: Shift = shift_of_eps,
    subsample: Callable[[Callable], Callable] = lambda penalty: penalty,
    criterion: Criterion = square,
    variance_loss: VarianceLoss = no_variance,
    noising: Callable[..., Noised] = add_noise,
):
    """Builds the objective of the module docstring; both norms are means over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        radius: budget of delta over time.
        perturb: `perturbation.random` (Robust_ran) or `perturbation.adversarial` (Robust_adv).
        weight: lambda_t.
        attack_loss: J, which an adversarial `perturb` maximises; others are in `objectives.controls`.
        shift_of: how the target follows delta; the paper's control is in `objectives.controls`.
        subsample: computes the penalty on part of the batch, see `objectives.subsample`.
        criterion: of the denoising error, as for `denoising`; the residual is a mean square.
        variance_loss: terms to add for a learnt variance, as for `denoising`.
        noising: (schedule, parameterization, keys, x0, t, **known) -> `Noised`; `ambient.add_noise_above` puts the penalty on
            top of the ambient loss.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B], **known) -> (loss [B], aux). `aux` holds the two terms, `denoising` and
        `penalty` [B], and the equivariance `residual` of the examples on which the penalty is computed.
    """

    def penalty(predict, keys, point, weight):
        x, _, _, sigma = point.noised

        def predict_mean(moved_x):
            return split_variance(predict(moved_x, point.t), x)[0]

        delta = perturb(keys.perturb, attack_loss(predict_mean, parameterization, point), x, point.radius)  # max J(delta)
        target = point.prediction + shift_of(parameterization, point, delta)  # eq. 9: eps_hat + delta / sigma
        residual = mean_square(predict_mean(x + delta) - target)
        return weight(point.u, point.r, mean_square(delta / sigma)) * residual, residual

    def objective(predict, keys, x0, t, **known):
        noise_keys, radius_keys, perturb_keys, group_keys = rng.split(keys, 4)
        noised = noising(schedule, parameterization, noise_keys, x0, t, **known)
        prediction, variance = split_variance(predict(noised.x, t), noised.x)
        denoising = criterion(prediction - noised.target, t)

        u = schedule.noise_to_signal(t)
        r = radius.sample(radius_keys, u)
        bound = radius.to_state(r, u) * schedule.scale(t)
        point = Point(noised, prediction, t, u, r, bound, energy=(bound / schedule.sigma(t)) ** 2)
        weighted, residual = subsample(penalty)(predict, PenaltyKeys(perturb_keys, group_keys), point, weight)

        extra = variance_loss(prediction, variance, noised, x0, t)
        aux = {"denoising": denoising, "residual": residual, "penalty": weighted, **extra}
        return sum(extra.values(), denoising + weighted), aux

    return objective
