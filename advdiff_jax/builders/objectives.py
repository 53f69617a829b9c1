"""Config -> the objective and what is known of it: the registry of `objectives`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from advdiff_jax.builders import ambient, closed_form
from advdiff_jax.builders.closed_form import ClosedForm
from advdiff_jax.builders.criteria import build_criterion
from advdiff_jax.builders.data import least_noise_std
from advdiff_jax.builders.masks import has_mask
from advdiff_jax.builders.noise_file import lowest_level
from advdiff_jax.builders.penalty import ATTACK_LOSSES, BALLS, PERTURBATIONS, RADII, SHIFTS, TARGET_SHIFTS, build_weight
from advdiff_jax.builders.process import Process
from advdiff_jax.builders.registry import Choice, as_user_error, build, lookup
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.objectives import gsure
from advdiff_jax.objectives.ambient import add_noise_above
from advdiff_jax.objectives.at_diff import at_diff
from advdiff_jax.objectives.ddpm_ip import ddpm_ip
from advdiff_jax.objectives.denoising import VarianceLoss, denoising, no_variance, square
from advdiff_jax.objectives.jvp import jvp
from advdiff_jax.objectives.robust import robust
from advdiff_jax.objectives.subsample import one_per_group
from advdiff_jax.objectives.variational import variational
from advdiff_jax.training.free_adversarial import make_ascent, make_free_step
from advdiff_jax.training.step import make_train_step

# (section `baselines`, std of the noise) -> factor of GSURE's divergence.
STEIN = {
    "exact": Choice(lambda c, noise_std: gsure.exact(noise_std)),
    "published": Choice(lambda c, noise_std: gsure.published(c.stein_scale), reads=("baselines.stein_scale",)),
}

# diffusion.learn_variance -> (config, process) -> the terms of a learnt variance.
VARIANCES = {
    False: Choice(lambda config, process: no_variance),
    True: Choice(
        lambda config, process: _variational(config.diffusion, process), reads=("diffusion.vlb_weight", "diffusion.vlb_bins")
    ),
}


def _variational(c, process):
    if not c.grid_steps:
        raise UserError("config.diffusion.learn_variance=True needs a discrete grid: set config.diffusion.grid_steps above 0")
    return variational(process.schedule, process.parameterization, c.grid_steps, c.vlb_weight, c.vlb_bins)


class ObjectiveSpec(NamedTuple):
    """What is known of a name of `config.objective`.

    Attributes:
        build: (config, process, variance loss, noise floor that the run has measured) -> objective, see `objectives`.
        reads: keys of the config that it reads and other objectives may not.
        cost: config -> network evaluations per example of a step: a forward pass is 1, a backward pass to the input 1, and one
            to the parameters as well 2; a forward-mode derivative costs a forward pass more.
        closed_form: (config, schedule, () -> noise floor, () -> dimension of the data) -> `ClosedForm`; None: there is none.
        lowest_noise: config -> noise-to-signal below which nothing is learnt; the sampler goes from there to the estimate
            of x0.
        needs_noise_std: it reads the standard deviation of the noise in each example.
        em: its steps denoise draws of an E-step, see `builders.em`, which knows the noise: "guess" (one std for all) |
            "measured" (of each example) | "": it trains on the data.
        by_level: what it learns from examples whose noise is measured: "above" (its level, of each) | "clean" (of those without
            noise alone) | "": nothing is measured.
        needs_mask: config -> whether it reads the mask of each example.
        gives_mask: its network sees the mask as a further channel.
        updates: config -> optimiser updates a step.
        make_step: (config, objective_at, **arguments of `training.step.make_train_step`) -> train_step.
        invariant: config -> what the perturbed penalty keeps, a name of `SHIFTS`; None: the objective perturbs nothing.
    """

    build: Callable[..., Callable]
    reads: tuple[str, ...] = ()
    cost: Callable[[ml_collections.ConfigDict], float] = lambda config: 3.0
    closed_form: Callable[..., ClosedForm] | None = None
    lowest_noise: Callable[[ml_collections.ConfigDict], float] = lambda config: 0.0
    needs_noise_std: bool = False
    em: str = ""
    by_level: str = ""
    needs_mask: Callable[[ml_collections.ConfigDict], bool] = lambda config: False
    gives_mask: bool = False
    updates: Callable[[ml_collections.ConfigDict], int] = lambda config: 1
    make_step: Callable = lambda config, objective_at, **arguments: make_train_step(objective_at=objective_at, **arguments)
    invariant: Callable[[ml_collections.ConfigDict], str] | None = None


def build_variance_loss(config: ml_collections.ConfigDict, process: Process) -> VarianceLoss:
    """Builds the terms of a learnt variance; raises UserError where there is no discrete grid."""
    with as_user_error("config.diffusion"):
        return VARIANCES[config.diffusion.learn_variance].build(config, process)


def build_denoising(
    config: ml_collections.ConfigDict, process: Process, variance_loss: VarianceLoss, by_square: jax.Array | bool = False
) -> Callable:
    """Builds plain denoising with the criterion of a config, or by the square where `by_square`, [] bool, holds."""
    criterion = build_criterion(config, process)

    def chosen(error, t):
        return jnp.where(by_square, square(error, t), criterion(error, t))

    return denoising(process.schedule, process.parameterization, variance_loss, criterion if criterion is square else chosen)


def _interval(config):
    """The factor on a penalty that is applied every k-th step alone: k."""
    return config.robust.lazy_interval if "robust.lazy_interval" in objective_spec(config).reads else 1


def build_robust(
    config: ml_collections.ConfigDict,
    process: Process,
    variance_loss: VarianceLoss,
    noise_floor: jax.Array | float | None,
    ramp: jax.Array | float = 1.0,
    **replace,
) -> Callable:
    """Builds the paper's objective or its control.

    Args:
        config: reads `objective`, `criterion`, `robust`, `baselines`.
        process: schedule and parameterisation.
        variance_loss: terms of a learnt variance.
        noise_floor: what the run has measured, for a weight that follows it.
        ramp: factor on the weight, see `weight_ramp`.
        **replace: arguments of `objectives.robust.robust` that replace those of the config, for diagnostics.
    """
    shift_of = SHIFTS[lookup(OBJECTIVES, config, "objective").invariant(config)]
    criterion = build_criterion(config, process)
    ball = build(BALLS, config, "robust.ball")
    arguments = {
        "radius": build(RADII, config, "robust.radius"),
        "perturb": build(PERTURBATIONS, config, "robust.perturbation", ball),
        "weight": build_weight(config, noise_floor, _interval(config) * ramp),
        "attack_loss": build(ATTACK_LOSSES, config, "robust.maximize", shift_of, criterion),
        "shift_of": shift_of,
        "subsample": functools.partial(one_per_group, group_size=config.robust.group_size),
        "criterion": criterion,
        "variance_loss": variance_loss,
    }
    return robust(process.schedule, process.parameterization, **(arguments | replace))


def _jvp(config, process, variance_loss, noise_floor, ramp=1.0):
    return jvp(
        process.schedule,
        process.parameterization,
        radius=build(RADII, config, "robust.radius"),
        ball=build(BALLS, config, "robust.ball"),
        weight=build_weight(config, noise_floor, _interval(config) * ramp),
        variance_loss=variance_loss,
    )


def _at_diff(config, process, variance_loss, noise_floor):
    return at_diff(process.schedule, process.parameterization, variance_loss)


def _free_step(config, objective_at, measure_until, **arguments):
    del measure_until  # the error of a moved state says nothing of the noise floor
    c = config.baselines
    return make_free_step(objective_at=objective_at, updates=c.updates, ascend=make_ascent(c.adv_lr, c.max_norm), **arguments)


def _ddpm_ip(config, process, variance_loss, noise_floor):
    return ddpm_ip(process.schedule, process.parameterization, config.baselines.gamma, variance_loss)


def _gsure(config, process, variance_loss, noise_floor):
    noise_std = ambient.guessed(config)
    with jax.ensure_compile_time_eval():  # an objective is also built inside the step
        highest = float(process.schedule.noise_to_signal(jnp.float32(1.0)))
    if noise_std >= highest:
        raise InvalidArgument(
            f"noise_std={noise_std:g} is not below the largest noise-to-signal of the process, {highest:.3g}: lower "
            "config.data.noise_std or config.baselines.guess"
        )
    stein = build(STEIN, config, "baselines.stein", noise_std)
    return gsure.gsure(process.schedule, process.parameterization, noise_std, stein, variance_loss)


def _ambient_equivariance(config, process, variance_loss, noise_floor, ramp=1.0):
    if variance_loss is not no_variance:
        raise InvalidArgument("ambient denoising cannot learn the variance: set diffusion.learn_variance=False")
    return build_robust(config, process, variance_loss, noise_floor, ramp, noising=add_noise_above, criterion=square)


def _penalty_cost(config):
    """A plain step; and forward and full backward at x_t + delta, after the ascent, on one example of each group."""
    ascent = lookup(PERTURBATIONS, config, "robust.perturbation").cost(config.robust)
    return 3.0 + (3.0 + ascent) / max(1, config.robust.group_size)


_CLEAN = ("noise.file", "noise.again", "noise.again_share")
_LEVELS = (*_CLEAN, "noise.margin", "noise.without_clean")
_EM = ("criterion", "em.laps", "em.e_step", "em.start", "em.steps")
_STRENGTH = tuple(f"robust.{key}" for key in ("radius", "ball", "weight", "start_step", "warmup_steps", "lazy_interval"))
_ROBUST = (*_STRENGTH, "criterion", "robust.perturbation", "robust.group_size")
_ON_TOP = tuple(f"robust.{key}" for key in ("radius", "ball", "weight", "warmup_steps", "perturbation", "group_size"))


def _perturbed(invariant, reads=()):
    """Returns the spec of the paper's objective, or of its control: what the perturbation must not change."""
    return ObjectiveSpec(
        build_robust,
        reads=(*_ROBUST, *reads),
        cost=_penalty_cost,
        closed_form=functools.partial(closed_form.of_penalty, invariant),
        invariant=invariant,
    )


def _plain(config, process, variance_loss, noise_floor):
    return build_denoising(config, process, variance_loss)


OBJECTIVES = {
    "denoising": ObjectiveSpec(
        _plain,
        reads=("criterion", "robust.explained"),  # plain training reports a noise floor
        closed_form=closed_form.no_penalty,
    ),
    "equivariance": _perturbed(
        lambda config: build(TARGET_SHIFTS, config, "robust.target_shift"), reads=("robust.target_shift",)
    ),
    "invariance": _perturbed(lambda config: "eps"),
    "jvp": ObjectiveSpec(
        _jvp,
        reads=_STRENGTH,
        cost=lambda config: 6.0,
        closed_form=functools.partial(closed_form.of_penalty, lambda config: "x0", perturbation="random"),
    ),
    "at_diff": ObjectiveSpec(
        _at_diff,
        reads=("baselines.updates", "baselines.adv_lr", "baselines.max_norm"),
        cost=lambda config: 3.0 * config.baselines.updates,
        updates=lambda config: config.baselines.updates,
        make_step=_free_step,
    ),
    "ddpm_ip": ObjectiveSpec(_ddpm_ip, reads=("baselines.gamma",), closed_form=closed_form.input_perturbation),
    "ambient_oracle": ObjectiveSpec(
        functools.partial(ambient.build_ambient, lambda config: None),
        reads=("baselines.margin", "baselines.consistency"),
        cost=ambient.cost_of_ambient,
        lowest_noise=functools.partial(ambient.lowest_ambient, least_noise_std),
        needs_noise_std=True,
    ),
    "ambient_guess": ObjectiveSpec(
        functools.partial(ambient.build_ambient, ambient.guessed),
        reads=("baselines.margin", "baselines.consistency", "baselines.guess", "data.noise_std"),
        cost=ambient.cost_of_ambient,
        lowest_noise=functools.partial(ambient.lowest_ambient, ambient.guessed),
    ),
    "ambient_blind": ObjectiveSpec(ambient.build_ambient_blind, reads=_LEVELS, lowest_noise=lowest_level, by_level="above"),
    "discard_blind": ObjectiveSpec(
        lambda config, process, variance_loss, noise_floor: denoising(
            process.schedule, process.parameterization, variance_loss
        ),
        reads=_CLEAN,
        by_level="clean",
    ),
    # The paper's penalty on top of the two; in every step, because plain steps know no levels.
    "ambient_equivariance": ObjectiveSpec(
        _ambient_equivariance,
        reads=(*_LEVELS, *_ON_TOP),
        cost=_penalty_cost,
        lowest_noise=lowest_level,
        by_level="above",
        invariant=lambda config: "x0",
    ),
    "discard_equivariance": ObjectiveSpec(
        build_robust,
        reads=(*_CLEAN, "criterion", *_ON_TOP),
        cost=_penalty_cost,
        by_level="clean",
        invariant=lambda config: "x0",
    ),
    "gsure": ObjectiveSpec(
        _gsure,
        reads=("baselines.guess", "baselines.stein", "data.noise_std"),
        cost=lambda config: 6.0,
        lowest_noise=ambient.guessed,
        needs_mask=has_mask,
    ),
    "em": ObjectiveSpec(_plain, reads=(*_EM, "baselines.guess", "data.noise_std"), em="guess"),
    "em_blind": ObjectiveSpec(_plain, reads=(*_EM, "noise.file"), em="measured"),
    "ambient_mask": ObjectiveSpec(
        ambient.build_ambient_mask, reads=("baselines.further",), needs_mask=lambda config: True, gives_mask=True
    ),
}


def objective_spec(config: ml_collections.ConfigDict) -> ObjectiveSpec:
    """Returns the spec of `config.objective`; raises UserError if it is unknown."""
    return lookup(OBJECTIVES, config, "objective")


def build_objective(
    config: ml_collections.ConfigDict,
    process: Process,
    variance_loss: VarianceLoss,
    noise_floor: jax.Array,
    ramp: jax.Array | float = 1.0,
) -> Callable:
    """Builds the objective of a config.

    Args:
        config: a resolved config.
        process: schedule and parameterisation.
        variance_loss: of `build_variance_loss`.
        noise_floor: noise level that the run has measured, [], for a weight that follows it.
        ramp: factor on the penalty's weight, see `weight_ramp`.

    Raises:
        UserError: an unknown name or a bad value.
    """
    with as_user_error(f"config.objective={config.objective}"):
        spec = objective_spec(config)
        followed = {"ramp": ramp} if "robust.warmup_steps" in spec.reads else {}
        return spec.build(config, process, variance_loss, noise_floor, **followed)
