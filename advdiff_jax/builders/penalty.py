"""Config -> the parts of the equivariance penalty: the registries of `perturbation`, weights and losses of the ascent."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from advdiff_jax.builders.registry import Choice, build
from advdiff_jax.objectives import controls, weights
from advdiff_jax.objectives.robust import prediction_shift, shift_of_eps
from advdiff_jax.perturbation import ball, radius
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.random import random

_BIAS = ("robust.rho", "robust.bias_min", "robust.bias_max")

RADII = {
    "state_units": Choice(lambda c: radius.state_units(c.rho, c.bias_min, c.bias_max), reads=_BIAS),
    "noise_units": Choice(lambda c: radius.noise_units(c.rho, c.bias_min, c.bias_max), reads=_BIAS),
    "constant": Choice(lambda c: radius.constant(c.constant), reads=("robust.constant",)),
}

BALLS = {name: Choice(lambda c, value=value: value) for name, value in ball.BALLS.items()}


class PerturbationSpec(NamedTuple):
    """What is known of a name of `config.robust.perturbation`.

    Attributes:
        build: (section `robust` of a config, ball) -> perturb.
        cost: section `robust` -> network evaluations per example: a forward and a backward to the input for each step.
        reads: keys of the config that it reads and other perturbations may not.
    """

    build: Callable
    cost: Callable[[ml_collections.ConfigDict], float]
    reads: tuple[str, ...] = ()


def step_size(c: ml_collections.ConfigDict) -> float:
    """Returns the length of a step of the ascent over the radius, from section `robust`; 0 there means the usual one."""
    return c.step_size or step_length(c.attack_steps)


PERTURBATIONS = {
    "random": PerturbationSpec(lambda c, ball: random(ball), cost=lambda c: 0.0),
    "adversarial": PerturbationSpec(
        lambda c, ball: adversarial(ball, c.attack_steps, step_size(c), c.random_start),
        cost=lambda c: 2.0 * c.attack_steps,
        reads=tuple(f"robust.{key}" for key in ("maximize", "attack_steps", "step_size", "random_start")),
    ),
}

# The last argument is the noise floor that the run has measured (`training.noise_floor`), which a weight may follow.
WEIGHTS = {
    "paper": Choice(lambda c, noise_floor: weights.paper(c.lam), reads=("robust.lam",)),
    "cutoff": Choice(
        lambda c, noise_floor: weights.cutoff(c.kappa0, c.cut, c.exponent),
        # configs of images define the cut as half of data.noise_std
        reads=("robust.kappa0", "robust.exponent", "robust.cut", "data.noise_std"),
    ),
    "adaptive": Choice(
        lambda c, noise_floor: weights.cutoff(c.kappa0, noise_floor, c.exponent),
        reads=("robust.kappa0", "robust.exponent", "robust.explained", "robust.floor"),
    ),
}

# (section `robust`, how the target follows delta, criterion of the denoising error) -> `robust.AttackLoss`.
ATTACK_LOSSES = {
    "shift": Choice(lambda c, shift_of, criterion: prediction_shift),
    "residual": Choice(lambda c, shift_of, criterion: controls.residual_loss(shift_of)),
    "denoising": Choice(lambda c, shift_of, criterion: controls.denoising_loss(criterion)),
}

# By what stays when the state moves: x0hat (equivariance of eps), eps (the paper's negative control), or neither.
SHIFTS = {"x0": shift_of_eps, "eps": controls.shift_of_x0, "neither": controls.shift_of_state}

# How eps follows delta in the penalty of `equivariance` -> a name of `SHIFTS`.
TARGET_SHIFTS = {"noise_units": Choice(lambda c: "x0"), "state_units": Choice(lambda c: "neither")}


def build_weight(
    config: ml_collections.ConfigDict, noise_floor: jax.Array | float | None, scale: jax.Array | float
) -> weights.Weight:
    """Builds lambda_t times `scale`."""
    weight = build(WEIGHTS, config, "robust.weight", noise_floor)
    return lambda *args: scale * weight(*args)
