"""EM around plain denoising: draw a clean training set given the noisy one, train on it, and again.

The workdir of a run with K laps holds

    laps/0                  a run of plain denoising: the first model
    laps/1 ... laps/K-1     a run each, with `config.em.laps` its number
    laps/k/draws.npy        what the model of lap k drew and lap k + 1 trains on, stored as the training set is
    checkpoints, samples    of the last lap, whose run is the workdir's own

Every lap is an ordinary run, so that it resumes, reports and evaluates as any other. Every lap after the first starts from the
parameters of the one before, with a new optimiser. A killed E-step goes on where its last block was written.
"""

import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders import em
from advdiff_jax.builders.data import build_data
from advdiff_jax.data import pixels
from advdiff_jax.data.held_out import Subset
from advdiff_jax.modes import PREVIEWS, e_step
from advdiff_jax.modes.lap_results import ranked
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


class Lap(NamedTuple):
    """What a lap trains on.

    Attributes:
        examples: the draws, a data set [N, ...]; None: the training set itself.
        before: folder of the run whose parameters it starts from; None: as `init_from` says.
    """

    examples: pixels.Examples | None = None
    before: pathlib.Path | None = None


Train = Callable[[ml_collections.ConfigDict, pathlib.Path, Lap], pathlib.Path]


def run(config: ml_collections.ConfigDict, folder: pathlib.Path, train: Train) -> pathlib.Path:
    """Runs all laps of a resolved config in `folder`, unless they are finished; returns the report.

    Args:
        config: of an objective with an E-step.
        folder: the workdir.
        train: trains and evaluates one lap: (config, folder, `Lap`) -> its report.

    Raises:
        UserError: see `builders.em`, `workdir` and `train`.
    """
    if workdir.is_trained(folder):
        return train(config, folder, Lap())
    if jax.process_index() == 0:
        workdir.claim(config, folder, evaluate_only=False, previews=PREVIEWS)
    parallel.barrier("laps claimed")
    data = build_data(config)
    known = em.build_known(config, data, folder)
    lap = Lap()
    for number in range(config.em.laps):
        lap = _prepare(config, data, known, folder / workdir.LAPS / str(number), number, lap, train)
    log.info("EM, lap %d of %d", config.em.laps, config.em.laps)
    opened = train(config, folder, lap)
    _say(config, folder, config.em.laps)
    return opened


def _say(config, folder, number):
    """Logs the results of a lap that rank runs."""
    found = ranked(workdir.read_results(folder / "results.json"))
    log.info("EM, lap %d of %d: %s", number, config.em.laps, ", ".join(f"{name} {x:.4g}" for name, x in found.items()))


def _prepare(config, data, known, folder, number, lap, train):
    """Trains lap `number` in `folder`, and draws with its model; returns the next `Lap`."""
    own = _of_lap(config, number)
    folder.parent.mkdir(exist_ok=True)
    if number:
        log.info("EM, lap %d of %d", number, config.em.laps)
        train(own, folder, lap)
        _say(config, folder, number)
    elif config.em.start == "gaussian":
        folder.mkdir(exist_ok=True)
        return Lap(e_step.draw_gaussian(config, data, known, folder))
    elif config.init_from and config.em.start == "dirty":
        log.info("EM, start: the model of config.init_from=%s as it is", config.init_from)
        folder.mkdir(exist_ok=True)
    else:
        log.info("EM, start: a model of the %s examples", config.em.start)
        train(own, folder, Lap(_clean(data, known)) if config.em.start == "clean" else lap)
        _say(config, folder, number)
    examples = e_step.draw(own, config, data, known, folder, number)
    return Lap(examples, folder if (folder / "config.json").exists() else None)


def _of_lap(config, number):
    """Returns the config of an earlier lap: without diagnostics, which are those of the last."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.evaluation.diagnostics = ()
        own.em.laps = max(1, number)
        own.objective = config.objective if number else "denoising"
    return own.lock()


def _clean(data, known):
    rows = em.clean_rows(known)
    log.info("EM, start: %s of %s examples are clean", f"{len(rows):,}", f"{len(known.std):,}")
    return Subset(data.train, rows)
