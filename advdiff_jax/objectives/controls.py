r"""Controls for the paper's objective: another shift of the target, and other losses for the ascent.

`shift_of_x0` is the paper's negative control, the adversarial training of classifiers: the prediction of eps stays and x0hat
moves by delta / alpha. It must fail on a score network.

`shift_of_state` is the literal reading of equation 9: state and target move by the same delta, in VP state units. It equals
delta / sigma at sigma = 1 alone. With m = E[delta^2] the best eps_th = a x of Gaussian data of variance s^2 has

    a = (sigma + lambda_t m) / (alpha^2 s^2 + sigma^2 + lambda_t m)

The loss of the ascent decides which directions the penalty smooths. The best predictor of Gaussian data of variance s^2 in a
direction is eps_th = a x with a = sigma / (alpha^2 s^2 + sigma^2). The paper's loss grows with the shift a delta, which is
largest where the data vary least: along the noise. The residual (1 / sigma - a) delta is largest where the data vary most:
along the signal. That is why the paper's choice works.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Parameterization
from advdiff_jax.objectives.denoising import Criterion, mean_square, square
from advdiff_jax.objectives.robust import AttackLoss, Point, Shift, shift_of_eps


def shift_of_x0(parameterization: Parameterization, point: Point, delta: jax.Array) -> jax.Array:
    """Returns the shift of the target that keeps eps: delta / alpha for a prediction of x0, 0 for a prediction of eps."""
    _, _, alpha, sigma = point.noised
    return parameterization.target(delta / alpha, 0.0 * delta, alpha, sigma)


def shift_of_state(parameterization: Parameterization, point: Point, delta: jax.Array) -> jax.Array:
    """Returns the shift that moves eps by delta itself, in VP state units, and x0hat by what remains of the state's move."""
    _, _, alpha, sigma = point.noised
    eps = delta / jnp.hypot(alpha, sigma)  # the scale of the process: 1 in a VP process
    return parameterization.target((delta - sigma * eps) / alpha, eps, alpha, sigma)


def residual_loss(shift_of: Shift = shift_of_eps) -> AttackLoss:
    """Builds J = the equivariance residual itself, with the anchor's gradient stopped; its gradient is 0 at delta = 0."""

    def attack(predict, parameterization: Parameterization, point: Point) -> Callable[[jax.Array], jax.Array]:
        anchor = jax.lax.stop_gradient(point.prediction)

        def attack_loss(moved_x):
            target = anchor + shift_of(parameterization, point, moved_x - point.noised.x)
            return mean_square(predict(moved_x) - target)

        return attack_loss

    return attack


def denoising_loss(criterion: Criterion = square) -> AttackLoss:
    """Builds J = the denoising term at x_t + delta; a plain backward pass yields its gradient at delta = 0 at no cost."""

    def attack(predict, parameterization: Parameterization, point: Point) -> Callable[[jax.Array], jax.Array]:
        del parameterization
        return lambda moved_x: criterion(predict(moved_x) - point.noised.target, point.t)

    return attack
