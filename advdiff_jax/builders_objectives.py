"""Config -> the objective and the step that minimises it, with what they cost: the dictionary of `objectives`."""

from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.errors import UserError
from advdiff_jax.objectives import pseudo_huber, weights
from advdiff_jax.objectives.ambient import ambient
from advdiff_jax.objectives.at_diff import at_diff
from advdiff_jax.objectives.ddpm_ip import ddpm_ip
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.objectives.equivariance import equivariance
from advdiff_jax.objectives.jvp import jvp
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.perturbation.random import random
from advdiff_jax.training.free import make_ascent, make_free_step
from advdiff_jax.training.step import make_train_step

RADII = {
    "state_units": lambda c: radius.state_units(c.rho, c.bias_min, c.bias_max),
    "noise_units": lambda c: radius.noise_units(c.rho, c.bias_min, c.bias_max),
    "constant": lambda c: radius.constant(c.constant),
}

PERTURBATIONS = {
    "random": lambda c, ball: random(ball),
    "adversarial": lambda c, ball: adversarial(ball, c.attack_steps, c.step_size, c.random_start),
}

# Evaluations that a perturbation costs by itself: a forward and a backward to the input for each step of an ascent.
PERTURBATION_UNITS = {"random": lambda c: 0.0, "adversarial": lambda c: 2.0 * c.attack_steps}

WEIGHTS = {
    "paper": lambda c: weights.paper(c.lam),
    "cutoff": lambda c: weights.cutoff(c.kappa0, c.cut, c.exponent),
}

HUBER_SCHEDULES = {
    "constant": lambda c: pseudo_huber.constant(c.huber_c),
    "exponential": lambda c: pseudo_huber.exponential(c.huber_c),
    "snr": lambda c: pseudo_huber.snr(c.huber_c),
}


class Entry(NamedTuple):
    """What a name of `config.objective` stands for; every field but `build` takes the config alone, or is a constant.

    Attributes:
        build: (config, schedule, parameterization, variance_loss) -> objective.
        units: network evaluations per example and step, where a forward pass is 1, a backward pass to the input 1, and one to
            the parameters as well 2; a forward-mode derivative costs a forward pass more.
        updates: optimiser updates a step.
        step: (config, schedule, *arguments of `training.step.make_train_step`) -> train_step.
        knows_noise: whether it is told the noise of each example.
        lowest: noise-to-signal below which nothing is learnt: the sampler goes from there to the estimate of x0.
    """

    build: Callable
    units: Callable[[ml_collections.ConfigDict], float] = lambda c: 3.0
    updates: Callable[[ml_collections.ConfigDict], int] = lambda c: 1
    step: Callable = lambda c, schedule, *arguments: make_train_step(*arguments)
    knows_noise: bool = False
    lowest: Callable[[ml_collections.ConfigDict], float] = lambda c: 0.0


def _regularised(blame):
    def build(config, schedule, parameterization, variance_loss):
        return equivariance(
            schedule,
            parameterization,
            radius=choose(RADII, config, "robust.radius"),
            perturb=choose(PERTURBATIONS, config, "robust.perturbation", pick(BALLS, config, "robust.ball")),
            weight=choose(WEIGHTS, config, "robust.weight"),
            maximize=config.robust.maximize,
            blame=blame,
            variance_loss=variance_loss,
        )

    return build


def _jvp(config, schedule, parameterization, variance_loss):
    return jvp(
        schedule,
        parameterization,
        radius=choose(RADII, config, "robust.radius"),
        ball=pick(BALLS, config, "robust.ball"),
        weight=choose(WEIGHTS, config, "robust.weight"),
        variance_loss=variance_loss,
    )


def _huber(config, schedule, parameterization, variance_loss):
    c = choose(HUBER_SCHEDULES, config, "neighbours.huber_schedule")
    return pseudo_huber.pseudo_huber(schedule, parameterization, c, variance_loss)


def _free_step(config, schedule, *arguments):
    n = config.neighbours
    ascend = make_ascent(n.adv_lr, n.max_norm)
    return make_free_step(*arguments, updates=n.updates, ascend=ascend, scale=schedule.scale)


def _guess(config):
    return config.neighbours.guess * config.data.noise_std


def _second_term_units(config):
    """Forward and full backward at x_t and at x_t + delta; the clean forward serves the ascent as well."""
    return 6.0 + pick(PERTURBATION_UNITS, config, "robust.perturbation")(config.robust)


OBJECTIVES = {
    "denoising": Entry(lambda c, *process: denoising(*process)),
    "equivariance": Entry(_regularised("noise"), _second_term_units),
    "invariance": Entry(_regularised("data"), _second_term_units),
    "jvp": Entry(_jvp, units=lambda c: 6.0),
    "at_diff": Entry(
        lambda c, *process: at_diff(*process),
        units=lambda c: 3.0 * c.neighbours.updates,
        updates=lambda c: c.neighbours.updates,
        step=_free_step,
    ),
    "ddpm_ip": Entry(lambda c, *process: ddpm_ip(*process[:2], c.neighbours.gamma, process[2])),
    "pseudo_huber": Entry(_huber),
    "ambient_oracle": Entry(lambda c, *process: ambient(*process[:2], c.neighbours.margin, None, process[2]), knows_noise=True),
    "ambient_guess": Entry(
        lambda c, *process: ambient(*process[:2], c.neighbours.margin, _guess(c), process[2]),
        lowest=lambda c: (1.0 + c.neighbours.margin) * _guess(c),
    ),
}


def entry(config: ml_collections.ConfigDict) -> Entry:
    """The entry of `config.objective`; raises UserError if it is not known."""
    return pick(OBJECTIVES, config, "objective")


def build_step(config: ml_collections.ConfigDict, schedule, parameterization, variance_loss, apply, *arguments) -> Callable:
    """The train step of the objective that a config names.

    Args:
        config: a config of `configs/`.
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        variance_loss: of `builders_process.build_variance_loss`.
        apply: the network, as for `training.step.make_train_step`.
        *arguments: those that follow the objective there.

    Raises:
        UserError: an unknown name or a value that cannot be.
    """
    chosen = entry(config)
    with refused(f"config.objective={config.objective}"):
        objective = chosen.build(config, schedule, parameterization, variance_loss)
        return chosen.step(config, schedule, apply, objective, *arguments)


def evaluations(config: ml_collections.ConfigDict) -> float:
    """Network evaluations per example and step of the variant that a config names, in the units of `Entry.units`.

    A forward pass is 1, a backward pass to the input 1, a full backward pass 2: DDPM 3, Robust_ran 6, Robust_adv 6 + 2 K.
    """
    return float(entry(config).units(config))


def budgeted(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with `train.steps` set to what `train.budget_evaluations` pays for; itself if there is no budget.

    Doing it twice changes nothing.

    Raises:
        UserError: the budget is negative or does not pay for one step.
    """
    budget, cost = config.train.budget_evaluations, evaluations(config) * config.train.batch_size
    if not budget or cost <= 0.0:  # what costs nothing cannot be, and `builders.check` says why
        return config
    if budget < cost:
        raise UserError(
            f"config.train.budget_evaluations={budget} does not pay for one step: a batch of {config.train.batch_size} "
            f"costs {cost:g} evaluations"
        )
    paid = config.copy_and_resolve_references()
    paid.train.steps = int(budget // cost)
    return paid
