"""The E-step of EM: a training set that is drawn given the noisy one, as a file that a killed run goes on with."""

import contextlib
import functools
import json
import logging
import os
import pathlib
import time

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.em import Known, build_e_step
from advdiff_jax.builders.experiment import build_experiment, sampling_params
from advdiff_jax.builders.pretrained import restore
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.modes.lap_results import ABOUT
from advdiff_jax.sampling import gaussian_prior, posterior
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

DRAWS = "draws.npy"
COPIED = 4096  # examples at once
KEY = 0x656D  # folded into sampling.seed for the draws of all laps


def draw(
    own: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    data: Data,
    known: Known,
    folder: pathlib.Path,
    number: int,
) -> pixels.Examples:
    """Draws a training set with the model of the run in `folder`, or goes on to, unless it is there.

    Args:
        own: config of the run in `folder`; one without a checkpoint has the model of its `init_from`.
        config: of the whole EM.
        data: the training set.
        known: noise and masks of its examples.
        folder: gets draws.npy, and draws.json with what they cost.
        number: of the lap; other laps have other draws.

    Returns:
        the draws, [N, ...], mapped from their file; clean and whole examples are as they were.

    Raises:
        UserError: no draw is finite, or there is no model.
    """
    path = folder / DRAWS
    if not path.exists():
        experiment = build_experiment(own, data.train.shape[1:])
        params = sampling_params(own, restore(own, experiment, folder).state)
        step = build_e_step(config, data.train.shape[1:])
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.sampling.seed), KEY), number)

        def apply(params, batch):
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch["index"])
            measured = posterior.masked(pixels.to_float(batch["y"]), batch["mask"], batch["std"])
            return step.draw(functools.partial(experiment.predict, params), keys, measured)

        words = f"EM, E-step {number + 1} of {config.em.laps} ({config.em.e_step})"
        spread = functools.partial(parallel.parallel_apply(apply, params), params)
        with workdir.lock(folder) if jax.process_index() == 0 else contextlib.nullcontext():
            _draw_blocks(config, data, known, path, spread, step.evaluations, words)
    parallel.barrier("draws written")
    return np.load(path, mmap_mode="r")


def _draw_blocks(config, data, known, path, spread, evaluations, words):
    """Draws the examples that are not given block by block, and notes after each how many are written."""
    rows = np.flatnonzero(~known.is_given(np.arange(len(data.train))))
    file = _File(path, data.train)
    done, seconds = parallel.gather(file.done())[0]  # the first process knows
    log.info("%s: draws %s of %s examples; the others are clean", words, f"{len(rows):,}", f"{len(known.std):,}")
    block, began, lost = config.sampling.batch_size * jax.device_count(), time.perf_counter() - seconds, 0
    for first in range(done, len(rows), block):
        chosen = rows[first : first + block]
        mine = chosen[jax.process_index() :: jax.process_count()]
        full = np.resize(mine if len(mine) else chosen, block // jax.process_count())  # one shape, so that one program
        found = parallel.gather_rows(np.asarray(spread(_batch(data, known, full)))[: len(mine)], len(chosen))
        finite = np.isfinite(found).reshape(len(found), -1).all(1)
        lost += int(np.sum(~finite))
        file.write(chosen[finite], found[finite], (first + len(chosen), time.perf_counter() - began))
    if lost and lost == len(rows):
        raise UserError(f"{words}: no draw is finite: lower config.train.learning_rate, and name another --workdir")
    if lost:
        log.warning("%s: %s draws are not finite; these examples stay as they are", words, f"{lost:,}")
    file.close({"drawn": len(rows), "seconds": time.perf_counter() - began, "network_evaluations": evaluations * len(rows)})


def _batch(data, known, indices):
    """Returns what an E-step reads of the examples at `indices` [n], by name."""
    y = data.train[indices]
    mask = np.ones((len(y), *[1] * (y.ndim - 1)), bool) if known.mask is None else known.mask(indices)
    return {"index": indices.astype(np.uint32), "y": y, "mask": mask, "std": known.std[indices]}


class _File:
    """draws.npy while it is written: a copy of the training set in which draws replace examples; of the first process alone."""

    def __init__(self, path, examples):
        self._path, self._partial, self._about = path, path.with_name(f"{path.name}.partial"), path.with_name(ABOUT)
        self._is_first = jax.process_index() == 0
        if not self._is_first:
            return
        if not self._about.exists():  # written after the copy is whole
            copy = np.lib.format.open_memmap(self._partial, "w+", examples.dtype, examples.shape)
            for first in range(0, len(examples), COPIED):
                rows = np.arange(first, min(first + COPIED, len(examples)))
                copy[rows] = examples[rows]
            self._note(copy, 0, 0.0)
        self._draws = np.lib.format.open_memmap(self._partial, "r+")

    def done(self):
        """Returns how many draws are written, and the seconds that they took."""
        about = json.loads(self._about.read_text()) if self._is_first else {}
        return about.get("drawn", 0), about.get("seconds", 0.0)

    def _note(self, draws, drawn, seconds):
        draws.flush()
        workdir.write_json(self._about, {"drawn": drawn, "seconds": seconds})

    def write(self, rows, found, done):
        if self._is_first:
            self._draws[rows] = pixels.as_stored(found, self._draws.dtype)
            self._note(self._draws, *done)

    def close(self, about):
        if self._is_first:
            workdir.write_json(self._about, about)
            os.replace(self._partial, self._path)


def draw_gaussian(config: ml_collections.ConfigDict, data: Data, known: Known, folder: pathlib.Path) -> pixels.Examples:
    """Fits a Gaussian and draws a training set with it, unless it is there; arguments and result as for `draw`."""
    path = folder / DRAWS
    if jax.process_index() == 0 and not path.exists():
        everything, shape = np.arange(len(data.train)), data.train.shape
        y = pixels.to_float(data.train[everything]).reshape(len(everything), -1)
        mask = None if known.mask is None else np.broadcast_to(known.mask(everything), shape).reshape(y.shape)
        log.info("EM, start: a Gaussian of %d dimensions, fitted in %d laps of its own", y.shape[1], config.em.gaussian_steps)
        with as_user_error("config.em"):
            model = gaussian_prior.fit(y, known.std, config.em.gaussian_steps, mask)
        draws = gaussian_prior.draw(np.random.default_rng([config.sampling.seed, KEY]), model, y, known.std, mask)
        draws[known.is_given(everything)] = y[known.is_given(everything)]
        file = _File(path, data.train)
        file.write(everything, draws.reshape(shape), (len(everything), 0.0))
        file.close({"drawn": len(everything), "seconds": 0.0, "network_evaluations": 0})
    parallel.barrier("draws written")
    return np.load(path, mmap_mode="r")
