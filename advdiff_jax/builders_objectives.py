"""Config -> the objective and the step that minimises it, with what they cost: the dictionary of `objectives`."""

import bisect
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from advdiff_jax import workdir
from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.errors import UserError
from advdiff_jax.objectives import pseudo_huber, weights
from advdiff_jax.objectives.ambient import ambient
from advdiff_jax.objectives.at_diff import at_diff
from advdiff_jax.objectives.ddpm_ip import ddpm_ip
from advdiff_jax.objectives.denoising import denoising, square
from advdiff_jax.objectives.equivariance import equivariance
from advdiff_jax.objectives.jvp import jvp
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.perturbation.random import random
from advdiff_jax.training import levels
from advdiff_jax.training.free import make_ascent, make_free_step
from advdiff_jax.training.plan import Plan
from advdiff_jax.training.step import make_train_step

RADII = {
    "state_units": lambda c: radius.state_units(c.rho, c.bias_min, c.bias_max),
    "noise_units": lambda c: radius.noise_units(c.rho, c.bias_min, c.bias_max),
    "constant": lambda c: radius.constant(c.constant),
}


def step_size(c: ml_collections.ConfigDict) -> float:
    """Length of a step of the ascent over the radius, by the section `robust` of a config."""
    return c.step_size or step_length(c.attack_steps)


PERTURBATIONS = {
    "random": lambda c, ball: random(ball),
    "adversarial": lambda c, ball: adversarial(ball, c.attack_steps, step_size(c), c.random_start),
}

# Evaluations that a perturbation costs by itself: a forward and a backward to the input for each step of an ascent.
PERTURBATION_UNITS = {"random": lambda c: 0.0, "adversarial": lambda c: 2.0 * c.attack_steps}


def _above_zero(name, value):
    if value <= 0.0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value


# The last argument is the noise level that the run has measured (`training.levels`); a weight may follow it.
WEIGHTS = {
    "paper": lambda c, measured: weights.paper(c.lam),
    "cutoff": lambda c, measured: weights.cutoff(c.kappa0, _above_zero("cut", c.cut), c.exponent),
    "adaptive": lambda c, measured: weights.cutoff(c.kappa0, measured, c.exponent),
}

HUBER_SCHEDULES = {
    "constant": lambda c: pseudo_huber.constant(c.huber_c),
    "exponential": lambda c: pseudo_huber.exponential(c.huber_c),
    "snr": lambda c: pseudo_huber.snr(c.huber_c),
}

CRITERIA = {
    "square": lambda c, schedule: square,
    "pseudo_huber": lambda c, schedule: pseudo_huber.pseudo_huber(
        schedule, choose(HUBER_SCHEDULES, c, "neighbours.huber_schedule")
    ),
}


# Keys that not every objective heeds, and what they are where nothing is asked for.
OPTIONAL = {"robust.start_step": 0.0, "robust.every": 1, "robust.one_in": 1, "criterion": "square"}


class Entry(NamedTuple):
    """What a name of `config.objective` stands for.

    Attributes:
        build: (config, (schedule, parameterization, variance_loss), measured noise level) -> objective.
        units: network evaluations per example of a step, where a forward pass is 1, a backward pass to the input 1, and one to
            the parameters as well 2; a forward-mode derivative costs a forward pass more.
        updates: optimiser updates a step.
        step: (config, *arguments of `training.step.make_train_step`) -> train_step.
        knows_noise: whether it is told the noise of each example.
        lowest: noise-to-signal below which nothing is learnt: the sampler goes from there to the estimate of x0.
        reads: of `OPTIONAL`, the keys that it heeds; with another it must be left at its default.
        blame: what a perturbed second term blames for a shift of the state, "noise" or "data"; None where there is none.
    """

    build: Callable
    units: Callable[[ml_collections.ConfigDict], float] = lambda c: 3.0
    updates: Callable[[ml_collections.ConfigDict], int] = lambda c: 1
    step: Callable = lambda c, *arguments: make_train_step(*arguments)
    knows_noise: bool = False
    lowest: Callable[[ml_collections.ConfigDict], float] = lambda c: 0.0
    reads: tuple[str, ...] = ()
    blame: str | None = None


def _weight(config, measured):
    """lambda_t; a lazy term is as many times heavier as it is rarer."""
    weight = choose(WEIGHTS, config, "robust.weight", measured)
    return lambda *args: config.robust.every * weight(*args)


def _second_term(config, process, measured):
    """Where and how much, for every objective with a second term."""
    schedule, parameterization, variance_loss = process
    return {
        "schedule": schedule,
        "parameterization": parameterization,
        "variance_loss": variance_loss,
        "radius": choose(RADII, config, "robust.radius"),
        "weight": _weight(config, measured),
    }


def build_equivariance(config: ml_collections.ConfigDict, process: tuple, measured: jax.Array, **instead) -> Callable:
    """The objective with a perturbed second term; arguments as for `build_objective`, `instead` of what the config says."""
    perturb = choose(PERTURBATIONS, config, "robust.perturbation", pick(BALLS, config, "robust.ball"))
    parts = {"perturb": perturb, "maximize": config.robust.maximize, "one_in": config.robust.one_in}
    criterion = choose(CRITERIA, config, "criterion", process[0])
    of = _second_term(config, process, measured) | {"blame": entry(config).blame, "criterion": criterion}
    return equivariance(**(of | parts | instead))


def _jvp(config, process, measured):
    return jvp(**_second_term(config, process, measured), ball=pick(BALLS, config, "robust.ball"))


def build_denoising(config: ml_collections.ConfigDict, process: tuple) -> Callable:
    """The first term alone, with the criterion that a config names."""
    criterion = choose(CRITERIA, config, "criterion", process[0])
    return denoising(*process, criterion)


def _free_step(config, apply, objective_at, *arguments):
    n, (*arguments, _) = config.neighbours, arguments  # nothing is measured: the error is that of a moved state
    objective, ascend = objective_at(levels.create()), make_ascent(n.adv_lr, n.max_norm)
    return make_free_step(apply, objective, *arguments, updates=n.updates, ascend=ascend)


def _least_noise(config):
    """Of any example; what an oracle learns below it is nothing."""
    c = config.data
    least = {"gaussian": c.noise_std, "gaussian_range": c.noise_std_min}
    surely = c.fraction >= 1.0 and all(c.chance[name] >= 1.0 for name in c.corruptions)
    return sum(least.get(name, 0.0) for name in c.corruptions) if surely else 0.0


def _guess(config):
    return config.neighbours.guess * config.data.noise_std


def _ambient(guess):
    return lambda c, process, measured: ambient(*process[:2], c.neighbours.margin, guess(c), process[2])


def _term_units(config):
    """A plain step; and forward and full backward at x_t + delta, after the ascent, on one in `one_in` examples."""
    ascent = pick(PERTURBATION_UNITS, config, "robust.perturbation")(config.robust)
    return 3.0 + (3.0 + ascent) / max(1, config.robust.one_in)


OBJECTIVES = {
    "denoising": Entry(lambda c, process, measured: build_denoising(c, process), reads=("criterion",)),
    "equivariance": Entry(build_equivariance, _term_units, reads=tuple(OPTIONAL), blame="noise"),
    "invariance": Entry(build_equivariance, _term_units, reads=tuple(OPTIONAL), blame="data"),
    "jvp": Entry(_jvp, units=lambda c: 6.0, reads=("robust.start_step", "robust.every")),
    "at_diff": Entry(
        lambda c, process, measured: at_diff(*process),
        units=lambda c: 3.0 * c.neighbours.updates,
        updates=lambda c: c.neighbours.updates,
        step=_free_step,
    ),
    "ddpm_ip": Entry(lambda c, process, measured: ddpm_ip(*process[:2], c.neighbours.gamma, process[2])),
    "ambient_oracle": Entry(
        _ambient(lambda c: None), knows_noise=True, lowest=lambda c: (1.0 + c.neighbours.margin) * _least_noise(c)
    ),
    "ambient_guess": Entry(_ambient(_guess), lowest=lambda c: (1.0 + c.neighbours.margin) * _guess(c)),
}


def entry(config: ml_collections.ConfigDict) -> Entry:
    """The entry of `config.objective`; raises UserError if it is not known."""
    return pick(OBJECTIVES, config, "objective")


def build_objective(config: ml_collections.ConfigDict, process: tuple, measured: jax.Array) -> Callable:
    """The objective that a config names.

    Args:
        config: a config of `configs/`.
        process: schedule, parameterisation, and the variance loss of `builders_process.build_variance_loss`.
        measured: noise level that the run has measured, [], for a weight that follows it.

    Raises:
        UserError: an unknown name or a value that cannot be.
    """
    with refused(f"config.objective={config.objective}"):
        return entry(config).build(config, process, measured)


def check_keys(config: ml_collections.ConfigDict) -> None:
    """Refuses what the objective of a config would ignore, or cannot do.

    Raises:
        UserError: a key of `OPTIONAL` that it does not heed, or a start of the ascent where its gradient is zero.
    """
    values = workdir.flatten(config)
    for key, default in OPTIONAL.items():
        if values[key] != default and key not in entry(config).reads:
            raise UserError(
                f"config.{key}={values[key]!r} is not for config.objective={config.objective!r}: leave it at {default!r}"
            )
    c = config.robust
    if c.perturbation == "adversarial" and not c.random_start and c.maximize != "denoising":
        raise UserError(
            f"config.robust.random_start=False: the gradient of maximize={c.maximize!r} is zero where nothing is moved; set it "
            "to True, or config.robust.maximize to 'denoising'"
        )
    if c.weight == "adaptive" and not 0.0 < c.explained < 1.0:
        raise UserError(f"config.robust.explained={c.explained} must lie between 0 and 1")


def plan(config: ml_collections.ConfigDict, total: int) -> Plan:
    """Which of `total` steps have the objective, and which are plain denoising before it or between; without the steps.

    Raises:
        UserError: `robust.start_step` or `robust.every` that cannot be.
    """
    c = config.robust
    start = round(c.start_step if c.start_step >= 1 else c.start_step * total)
    with refused("config.robust"):
        return Plan(total, None, None, total if config.objective == "denoising" else start, c.every)


def evaluations(config: ml_collections.ConfigDict, total: int, done: int | None = None) -> float:
    """Network evaluations per example of the first `done` (default: all) of a run's `total` steps, in units of `Entry.units`.

    A forward pass is 1, a backward pass to the input 1, a full backward pass 2: a step of DDPM is 3, of Robust_ran 6, of
    Robust_adv 6 + 2 K.
    """
    done = total if done is None else done
    full = plan(config, total).full_steps(done)
    return 3.0 * (done - full) + float(entry(config).units(config)) * full


def budgeted(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with `train.steps` set to what `train.budget_evaluations` pays for; itself if there is no budget.

    Doing it twice changes nothing.

    Raises:
        UserError: the budget is negative or does not pay for one step.
    """
    budget, batch_size = config.train.budget_evaluations, config.train.batch_size
    if budget < 0:
        raise UserError(f"config.train.budget_evaluations={budget} is negative: give 0 for no budget")
    if not budget or batch_size < 1 or evaluations(config, 1) <= 0.0:  # what costs nothing cannot be: `builders.check`
        return config
    # Costs grow with the number of steps: the largest that is paid for.
    most = budget // batch_size + 1
    steps = bisect.bisect_right(range(most), budget, lo=1, key=lambda n: evaluations(config, n) * batch_size) - 1
    if steps < 1:
        raise UserError(
            f"config.train.budget_evaluations={budget} does not pay for one step: a batch of {batch_size} "
            f"costs {evaluations(config, 1) * batch_size:g} evaluations"
        )
    paid = config.copy_and_resolve_references()
    paid.train.steps = steps
    return paid
