"""Config -> the measured noise of each example, and the pairs of example and time that it allows."""

import logging
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from advdiff_jax.builders import model_reading
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.noise_file import (
    CUT,
    FILE,
    LEARNT,
    LEAST_MARGIN,
    MEASURED,
    common_level,
    floor_spec,
    follows_floor,
    has_clean,
    learns_noise,
    margin,
    taught,
)
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.builders.steps import evaluations
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.diffusion.model import Model
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import UserError
from advdiff_jax.noise import measure, quiet
from advdiff_jax.noise.measure import NoiseLevels
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

GRID = 4096  # quantiles of the training time


def describe(levels: NoiseLevels) -> str:
    """Says in one line what was found."""
    noisy, count = levels.of_noisy(), len(levels.std)
    if not len(noisy):
        return f"noise of {count:,} examples: {levels.words}"
    low, middle, high = np.quantile(noisy, [0.05, 0.5, 0.95])
    spread = "the same for all" if high < 1.02 * low else f"most between {low:.3g} and {high:.3g}"
    return (
        f"noise of {count:,} examples: {len(noisy) / count:.1%} are noisy, std {middle:.3g}, {spread} (one "
        f"reading errs by {levels.error:.0%}); {levels.words}"
    )


def build_levels(config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path | None = None) -> NoiseLevels:
    """Reads the levels of `noise.file`, or those that the run in `folder` has measured; measures them if there are none.

    The folder keeps what a run trains with. With a folder every process must call this.

    Raises:
        UserError: the file is of another data set, or the examples hold numbers that are not finite.
    """
    kept = folder and folder / FILE
    path = pathlib.Path(config.noise.file) if config.noise.file else kept
    if kept and jax.process_index() > 0:  # all processes train with what the first one finds
        parallel.barrier("levels measured")
        return measure.load(kept)
    with as_user_error("config.noise"):
        is_there = config.noise.file or (path and path.exists())
        found = measure.load(path) if is_there else measure.measure(data.train, config.seed)
    if len(found.std) != len(data.train):
        raise UserError(
            f"{path} has the noise of {len(found.std):,} examples, and the training set has {len(data.train):,}: write it "
            "again with --mode=noise"
        )
    if config.noise.file and found.data and found.data != measure.identity(data.train):
        raise UserError(
            f"config.noise.file={path} has the noise of other examples: of another config.data.seed, which "
            "follows config.seed, of other images or other dirt; write it again with --mode=noise and the settings of this run"
        )
    if kept:
        measure.save(kept, found)
        parallel.barrier("levels measured")
    return found


def _draws_of_again(config, data):
    """The draws that a model may take of each example, for its share of the run's network evaluations."""
    budget = config.noise.again_share * config.train.batch_size * evaluations(config, config.train.steps)
    return model_reading.affordable_draws(budget, len(data.train), data.train.shape[1:])


def step_of_again(config: ml_collections.ConfigDict, data: Data, found: NoiseLevels) -> int:
    """Returns the step at which a run that has `found` these levels measures again, with its model's help.

    0: never, as where `noise.file` gives the levels, where an example has too few numbers for a level of its own, where too few
    are clean to calibrate the model's reading, or where it costs too much of the run; a line says so.
    """
    step = int(config.noise.again * config.train.steps)
    if not step or config.noise.file or quiet.is_tiny(data.train.shape[1:]) or not has_clean(found):
        return 0
    if not _draws_of_again(config, data):
        log.info(
            "the noise is not measured again: the model's reading would take %s network evaluations, more than "
            "config.noise.again_share=%g of the run's",
            f"{model_reading.cost(len(data.train), 1):,}",
            config.noise.again_share,
        )
        return 0
    return step


def measure_again(
    config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path, build_model: Callable[[], Model], step: int
) -> None:
    """Replaces the levels that the run in `folder` keeps by those that its model of this step reads too.

    Every process must call this; the first one measures.
    """
    model = build_model()  # all processes open the checkpoint
    if jax.process_index() == 0:
        draws = _draws_of_again(config, data)
        reader = model_reading.build_reader(model, data.train.shape[1:], config.seed, draws, config.sampling.batch_size)
        found = measure.measure(data.train, config.seed, model_reading.read_all(reader, data.train))
        cost = model_reading.cost(len(data.train), draws)
        measure.save(folder / FILE, found._replace(step=step, evaluations=cost))
        log.info("step %s: measured again with the model's help, for %s network evaluations", f"{step:,}", f"{cost:,}")
    parallel.barrier("levels measured again")


def located(config: ml_collections.ConfigDict, folder: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config with what the run in `folder` has measured: its file, and what `sampling.final_denoise` removes."""
    if not (folder / FILE).exists():
        return config
    found = config.copy_and_resolve_references()
    with found.unlocked(), found.ignore_type():
        found.noise.file, kept = str(folder / FILE), measure.load(folder / FILE)
        if found.sampling.final_denoise == MEASURED:
            found.sampling.final_denoise = common_level(kept)
        elif found.sampling.final_denoise == LEARNT:
            has_learnt = objective_spec(config).by_level == "above" and learns_noise(config, kept)
            found.sampling.final_denoise = common_level(kept) if has_learnt else 0.0
            found.sampling.final_own |= has_learnt
    return found


def is_floor_measured(config: ml_collections.ConfigDict, data: Data) -> bool:
    """Says whether the noise of the data is measured for a weight of the penalty to follow.

    That of points is measured where nothing else is followed, or `noise.file` has it: few numbers say little.
    """
    says_enough = not quiet.is_tiny(data.train.shape[1:]) or bool(config.noise.file) or not floor_spec(config).by_training
    return follows_floor(config) and floor_spec(config).by_data and says_enough


def say_floor(config: ml_collections.ConfigDict, level: float) -> None:
    """Says where a penalty ends that follows the noise of the data, whose common std is `level`; warns if that leaves none."""
    if not follows_floor(config) or not floor_spec(config).by_data:
        return
    if floor_spec(config).by_training:
        least = f", and ends at {CUT:g} of that std, {CUT * level:.3g}, at least" if level else ""
        log.info("config.robust.floor=measured: the penalty follows the floor that plain training measures%s", least)
    elif level:
        log.info("config.robust.floor=data: the penalty ends at %g of that std, %.3g", CUT, CUT * level)
    else:
        log.warning(
            "config.robust.floor=data: no noise is found, so the penalty has no weight and costs its evaluations: set "
            "config.robust.weight=cutoff, or a variant without a penalty"
        )


def measured(config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path) -> ml_collections.ConfigDict:
    """Measures the noise if a key asks for it and `folder` has no levels; returns `located`.

    Raises:
        UserError: see `build_levels`.
    """
    is_followed = is_floor_measured(config, data)
    if config.sampling.final_denoise != MEASURED and not is_followed:
        return located(config, folder)
    is_new = not (folder / FILE).exists()
    level = common_level(found := build_levels(config, data, folder))
    if is_new:
        log.info("%s", describe(found))
    if config.sampling.final_denoise == MEASURED:
        log.info("config.sampling.final_denoise=measured: the final step removes noise of std %.3g", level)
    if is_followed and is_new:
        say_floor(config, level)
    return located(config, folder)


def build_pairs(config: ml_collections.ConfigDict, schedule: Schedule, levels: NoiseLevels, discard: bool = False) -> Pairs:
    """Builds the sampler of pairs; with `discard`, noisy examples teach nothing.

    Raises:
        UserError: no example may teach any time.
    """
    std = np.where(levels.is_clean, 0.0, np.inf) if discard else taught(config, levels)
    ratios = np.asarray(schedule.noise_to_signal(schedule.training_time(np.arange(GRID) / GRID)))
    chosen = margin(config, levels)
    with as_user_error(f"config.objective={config.objective}"):
        pairs = Pairs(std, ratios, chosen, config.seed, levels.uncertainty if chosen > LEAST_MARGIN else 0.0)
    clean = int(np.sum(levels.is_clean))
    if not discard and learns_noise(config, levels):
        log.warning(
            "%d clean examples are too few to teach the low noise levels: the model learns the noise too, and a final step "
            "removes it from samples, std %.3g at most; config.noise.without_clean=lowest trains above the noise instead",
            clean,
            common_level(levels),
        )
    elif not discard and chosen < config.noise.margin:
        log.warning(
            "%d clean examples are too few to teach the low noise levels: noisy ones teach from %.3g times their own level on, "
            "and %.0f%% of the training times are left out",
            clean,
            chosen,
            100.0 * pairs.wasted,
        )
    elif not discard and clean < len(levels.std):
        log.info("below %.3g times their own level noisy examples teach nothing: %s clean ones do", chosen, f"{clean:,}")
    return pairs
