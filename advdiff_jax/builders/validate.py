"""The door: a config is checked and completed once, by `resolve`; after that it is data.

Which keys a run reads follows from the specs of the names that the config gives: a key that some spec lists in its `reads` is
read if the config gives a name whose spec lists it, and that name's own key is read. All other keys are always read.
"""

import logging
from collections.abc import Iterable
from typing import Any

import jax
import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders import attack, em, foreign, pretrained, purify
from advdiff_jax.builders.corruptions import CORRUPTIONS
from advdiff_jax.builders.criteria import CRITERIA, HUBER_SCHEDULES
from advdiff_jax.builders.data import STORAGES
from advdiff_jax.builders.diagnostics import DIAGNOSTICS
from advdiff_jax.builders.experiment import DOWN_BLOCKS, DTYPES, LEARNING_RATES, NETWORKS, RESAMPLING, UP_BLOCKS
from advdiff_jax.builders.features import FEATURES, fall_back
from advdiff_jax.builders.metrics import METRICS
from advdiff_jax.builders.noise_file import FLOORS, WITHOUT_CLEAN, follows_training
from advdiff_jax.builders.objectives import OBJECTIVES, STEIN, VARIANCES, objective_spec
from advdiff_jax.builders.operators import OPERATORS
from advdiff_jax.builders.penalty import ATTACK_LOSSES, BALLS, PERTURBATIONS, RADII, TARGET_SHIFTS, WEIGHTS
from advdiff_jax.builders.process import GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES, TIME_INPUTS
from advdiff_jax.builders.ranges import check_ranges
from advdiff_jax.builders.registry import find, get, lookup
from advdiff_jax.builders.restored import RESTORED
from advdiff_jax.builders.restorers import RESTORERS
from advdiff_jax.builders.sources import MASKS, SOURCES, SUBSPACE_DISTRIBUTIONS
from advdiff_jax.builders.steps import affordable_steps, build_step_schedule
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

# key -> the registry of the names that it gives; a tuple gives several.
CHOICES: dict[str, dict[Any, Any]] = {
    "objective": OBJECTIVES,
    "criterion": CRITERIA,
    "baselines.huber_schedule": HUBER_SCHEDULES,
    "baselines.stein": STEIN,
    "em.e_step": em.E_STEPS,
    "em.start": em.STARTS,
    "robust.radius": RADII,
    "robust.ball": BALLS,
    "robust.perturbation": PERTURBATIONS,
    "robust.maximize": ATTACK_LOSSES,
    "robust.weight": WEIGHTS,
    "robust.floor": FLOORS,
    "noise.without_clean": WITHOUT_CLEAN,
    "robust.target_shift": TARGET_SHIFTS,
    "data.source": SOURCES,
    "data.base": SOURCES,
    "data.foreign_source": SOURCES,
    "data.mask": MASKS,
    "data.subspace_distribution": SUBSPACE_DISTRIBUTIONS,
    "data.corruptions": CORRUPTIONS,
    "data.restored_by": RESTORED,
    "data.storage": STORAGES,
    "poison.ball": BALLS,
    "restore.operator": OPERATORS,
    "restore.method": RESTORERS,
    "restore.beside": RESTORERS,
    "purify.samplers": purify.SAMPLERS,
    "purify.balls": BALLS,
    "anomaly.source": SOURCES,
    "diffusion.schedule": SCHEDULES,
    "diffusion.prediction": PREDICTIONS,
    "diffusion.learn_variance": VARIANCES,
    "network.kind": NETWORKS,
    "network.dtype": DTYPES,
    "network.time_input": TIME_INPUTS,
    "network.down_block_types": DOWN_BLOCKS,
    "network.up_block_types": UP_BLOCKS,
    "network.downsample_type": RESAMPLING,
    "network.upsample_type": RESAMPLING,
    "train.decay": LEARNING_RATES,
    "sampling.method": SAMPLERS,
    "sampling.grid": GRIDS,
    "evaluation.metrics": METRICS,
    "evaluation.diagnostics": DIAGNOSTICS,
    "evaluation.features": FEATURES,
    "evaluation.attack.samplers": attack.SAMPLERS,
    "evaluation.attack.balls": BALLS,
    "evaluation.attack.threats": attack.THREATS,
    "evaluation.attack.objectives": attack.OBJECTIVES,
    "evaluation.few_steps.samplers": SAMPLERS,
    "evaluation.foreign.by": foreign.SCORES,
}


def resolve(
    config: ml_collections.ConfigDict, overrides: Iterable[str] = (), modes: dict[str, Any] | None = None, mode: str = "train"
) -> ml_collections.ConfigDict:
    """Checks a config and completes it: references are resolved, `train.steps` is what the budget pays for, and a pretrained
    network is described.

    Args:
        config: a config of `configs/`.
        overrides: keys that the user gave, as "section.key"; each must be read by this run.
        modes: name -> spec of the modes; a spec lists the keys in `reads` that its mode alone reads.
        mode: the one that runs.

    Returns:
        a copy, locked.

    Raises:
        UserError: an unknown name, a number out of its range, an override that nothing reads, or values that contradict
            each other.
    """
    config = config.copy_and_resolve_references()
    if config.network.kind == "pretrained" and (not modes or modes[mode].needs_network):
        pretrained.follow(config, overrides)
    fallen_back = fall_back(config, overrides)
    if fallen_back and "evaluation.features" in read_keys(config, modes, mode):
        log.warning(fallen_back)
    _check_overrides(config, overrides, modes or {}, mode)
    check_ranges(workdir.flatten(config))
    _check_batch(config)
    if config.train.budget_evaluations:
        if "train.steps" in overrides and "train.budget_evaluations" not in overrides:
            raise UserError(
                f"config.train.steps={config.train.steps} would not be read: config.train.budget_evaluations="
                f"{config.train.budget_evaluations} says how many steps there are; set that, or also set it to 0"
            )
        config.train.steps = affordable_steps(config)
    _check_steps(config)
    _check_ascent(config)
    _check_averages(config)
    em.check(config)
    _check_restored(config)
    return config.lock()


def _names(config, key):
    value = get(config, key)
    return value if isinstance(value, list | tuple) else (value,)


def _conditional(modes):
    """key -> the (key, name) of the choices whose specs list it."""
    found = {}
    for choice, table in {**CHOICES, "--mode": modes}.items():
        for name, spec in table.items():
            for key in spec.reads:
                found.setdefault(key, []).append((choice, name))
    return found


def read_keys(config: ml_collections.ConfigDict, modes: dict[str, Any] | None = None, mode: str = "train") -> set[str]:
    """Returns the keys that a run of the config reads; arguments as for `resolve`.

    Raises:
        UserError: an unknown name.
    """
    modes = modes or {}
    conditional = _conditional(modes)
    read = {key for key in workdir.flatten(config) if key not in conditional}
    pending = [key for key in CHOICES if key in read]
    reads = list(modes[mode].reads) if modes else []
    while pending or reads:
        while reads:
            key = reads.pop()
            if key in CHOICES and key not in read:
                pending.append(key)
            read.add(key)
        if pending:
            key = pending.pop()
            for name in _names(config, key):
                reads += find(CHOICES[key], name, key).reads
    return read


def _check_overrides(config, overrides, modes, mode):
    conditional, read = _conditional(modes), read_keys(config, modes, mode)
    for key in overrides:
        if key in conditional and key not in read:
            needed = _needed(key, conditional, read)
            wanted = " or ".join(f"{_shown(choice)}={'|'.join(map(str, names))}" for choice, names in needed.items())
            found = ", ".join(f"{_shown(choice)}={mode if choice == '--mode' else get(config, choice)}" for choice in needed)
            raise UserError(
                f"config.{key}={get(config, key)!r} would not be read: it needs {wanted}, and this run "
                f"({config.variant or config.name}) has {found}; set that, or leave this out"
            )


def _needed(key, conditional, read):
    """Returns choice -> the names under which the key is read; of a choice that is not read itself, what that needs."""
    needed: dict[str, list] = {}
    for choice, name in conditional[key]:
        needed.setdefault(choice, []).append(name)
    made = {choice: names for choice, names in needed.items() if choice in read or choice == "--mode"}
    if not made:
        for choice in needed:
            made |= _needed(choice, conditional, read)
    return made


def _shown(choice):
    return choice if choice == "--mode" else f"config.{choice}"


def _check_batch(config):
    devices, batch_size, group_size = jax.device_count(), config.train.batch_size, config.robust.group_size
    if batch_size % devices:
        raise UserError(
            f"config.train.batch_size={batch_size} is not divisible by the {devices} devices: set "
            f"{batch_size // devices * devices or devices}"
        )
    local, parts = batch_size // devices, config.train.accumulate
    where = f"config.train.batch_size={batch_size} on {devices} devices"
    if local % parts:
        raise UserError(
            f"config.train.accumulate={parts} must divide the batch of a device, which is {local} ({where}): set "
            f"{_largest_divisor(local, parts)}"
        )
    local //= parts
    if "robust.group_size" in objective_spec(config).reads and local % group_size:
        part = "the batch of a device" if parts == 1 else "the micro-batch of a device"
        where += "" if parts == 1 else f" in {parts} micro-batches"
        raise UserError(
            f"config.robust.group_size={group_size} must divide {part}, which is {local} ({where}): set "
            f"{_largest_divisor(local, group_size)}"
        )


def _largest_divisor(number, limit):
    return max(m for m in range(1, limit + 1) if number % m == 0)


def _check_steps(config):
    steps, warmup = config.train.steps, config.train.warmup_steps
    paid = ", the number that config.train.budget_evaluations pays for" if config.train.budget_evaluations else ""
    if config.train.decay == "cosine" and warmup >= steps:
        raise UserError(f"config.train.warmup_steps={warmup} must be smaller than config.train.steps={steps}{paid}: lower it")
    every, saved = config.train.keep_every, config.train.checkpoint_every
    if every % saved:
        raise UserError(
            f"config.train.keep_every={every} is not a multiple of config.train.checkpoint_every={saved}: set "
            f"{-(-every // saved) * saved}"
        )
    if config.objective != "denoising" and build_step_schedule(config, steps).start >= steps:
        raise UserError(
            f"config.robust.start_step={config.robust.start_step:g} leaves none of the {steps} steps{paid} to "
            f"config.objective={config.objective!r}: lower it"
        )


def _check_averages(config):
    decays, chosen = (config.train.ema_decay, *config.train.more_ema_decays), config.sampling.ema_decay
    if len(set(decays)) < len(decays):
        raise UserError(
            f"config.train.more_ema_decays={config.train.more_ema_decays} repeats a decay, or has "
            f"config.train.ema_decay={config.train.ema_decay:g}: leave that out"
        )
    if chosen and chosen not in decays:
        raise UserError(
            f"config.sampling.ema_decay={chosen:g} is not an average of this run: set one of {', '.join(map(str, decays))}"
        )


def _check_restored(config):
    spec, by = objective_spec(config), config.data.restored_by
    if lookup(RESTORED, config, "data.restored_by").filters and (spec.needs_noise_std or "baselines.guess" in spec.reads):
        raise UserError(
            f"config.objective={config.objective} is given the std of the noise, which config.data.restored_by={by!r} changes: "
            "set none"
        )


def _check_ascent(config):
    c, reads = config.robust, objective_spec(config).reads
    if "robust.perturbation" in reads and c.perturbation == "adversarial" and not c.random_start and c.maximize != "denoising":
        raise UserError(
            f"config.robust.random_start=False: the gradient of maximize={c.maximize!r} is zero at delta = 0; set "
            "random_start=True, or maximize='denoising'"
        )
    start = build_step_schedule(config, config.train.steps).start
    if "robust.weight" in reads and follows_training(config) and not (start or config.init_from):
        waits = "config.robust.start_step above 0, " if "robust.start_step" in reads else ""
        raise UserError(
            f"config.robust.weight={c.weight!r} follows a noise floor that plain denoising steps measure: set {waits}"
            "config.init_from to a finished run, or config.robust.floor to data"
        )
