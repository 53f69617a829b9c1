"""Config -> when a run applies its objective, what its steps cost, and how many of them a budget pays for."""

import bisect

import jax
import jax.numpy as jnp
import ml_collections

from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.errors import UserError
from advdiff_jax.training.step_schedule import StepSchedule


def weight_ramp(config: ml_collections.ConfigDict, step: jax.Array) -> jax.Array | float:
    """Returns the factor on the penalty's weight in a step: it rises linearly to 1 over `robust.warmup_steps` steps."""
    total = config.train.steps
    steps = _steps(config.robust.warmup_steps, total)
    return jnp.clip((step - build_step_schedule(config, total).start + 1) / steps, 0.0, 1.0) if steps else 1.0


def _steps(number, total):
    """Returns a number of steps that may be given as a share of all steps, below 1."""
    return round(number if number >= 1 else number * total)


def build_step_schedule(config: ml_collections.ConfigDict, total: int) -> StepSchedule:
    """Builds when a run of `total` steps applies its objective; it trains by plain denoising before that and between.

    An objective that does not read `robust.start_step` is applied in every step; plain denoising has no penalty to apply.

    Raises:
        UserError: a bad `robust.start_step` or `robust.lazy_interval`.
    """
    c, reads = config.robust, objective_spec(config).reads
    if config.objective == "denoising":
        return StepSchedule(total, total)
    if "robust.start_step" not in reads:
        return StepSchedule(total)
    with as_user_error("config.robust"):
        return StepSchedule(total, _steps(c.start_step, total), c.lazy_interval)


def evaluations(config: ml_collections.ConfigDict, total: int, done: int | None = None) -> float:
    """Counts the network evaluations per example of the first `done` (default: all) of a run's `total` steps.

    Units are those of `ObjectiveSpec.cost`: a step of DDPM is 3, of Robust_ran 6, of Robust_adv 6 + 2 K.
    """
    done = total if done is None else done
    penalised = build_step_schedule(config, total).penalty_steps(done)
    return 3.0 * (done - penalised) + float(objective_spec(config).cost(config)) * penalised


def affordable_steps(config: ml_collections.ConfigDict) -> int:
    """Returns the largest number of steps that `train.budget_evaluations` pays for.

    Raises:
        UserError: the budget is too small for one step.
    """
    budget, batch_size = config.train.budget_evaluations, config.train.batch_size
    most = budget // batch_size + 1  # costs grow with the number of steps, and a step costs 1 at least
    steps = bisect.bisect_right(range(most), budget, lo=1, key=lambda n: evaluations(config, n) * batch_size) - 1
    if steps < 1:
        raise UserError(
            f"config.train.budget_evaluations={budget} is too small for one training step: a batch of {batch_size} "
            f"costs {evaluations(config, 1) * batch_size:g} evaluations"
        )
    return steps


def measured_steps(config: ml_collections.ConfigDict, step_schedule: StepSchedule) -> int:
    """Returns how many steps of a run measure the noise floor: those before the penalty, which denoise by the square.

    The theory of the noise floor is that of the square. Plain training by another criterion has no noise floor to report.
    """
    return 0 if config.objective == "denoising" and config.criterion != "square" else step_schedule.start
