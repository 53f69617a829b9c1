"""`--mode=sample`: draws from the newest checkpoint of a run."""

import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.builders.experiment import Experiment, build_experiment, sampling_params
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.modes import preview
from advdiff_jax.training import parallel
from advdiff_jax.training.checkpoint import restore_latest

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Draws `evaluation.num_samples` samples from the run in `folder` into samples/; returns the image.

    Raises:
        UserError: see `builders` and `workdir`, or there is no checkpoint.
    """
    out = workdir.claim(config, folder, evaluate_only=True) if jax.process_index() == 0 else folder
    data = build_data(config)
    experiment = build_experiment(config, data.train.shape[1:])
    state = restore_latest(folder, experiment.init, experiment.optimizer).state
    draw(config, data, experiment, out, int(state.step), parallel.replicate(sampling_params(config, state)))
    return image_path(out, int(state.step))


def image_path(out: pathlib.Path, step: int) -> pathlib.Path:
    """Returns where the image of the samples of a step is."""
    return out / "samples" / f"step_{step}.png"


def draw(
    config: ml_collections.ConfigDict,
    data: Data,
    experiment: Experiment,
    out: pathlib.Path,
    step: int,
    params: Any,
    between: Callable[[], None] = lambda: None,
    count: int | None = None,
) -> np.ndarray:
    """Draws samples with replicated parameters, and writes them and their image to `out`/samples.

    Samples are stored as their data are: of 8-bit images as 8-bit images, clipped and rounded. Those that are not finite are
    left out, with a warning.

    Args:
        config: a resolved config.
        data: sets the limits of the image, and how samples are stored.
        experiment: has the sampler.
        out: folder of the results.
        step: of the checkpoint; names the files.
        params: averaged parameters, as `parallel.replicate` lays them out.
        between: called between rounds of sampling; may raise.
        count: number of samples; None: `evaluation.num_samples`.

    Returns:
        the finite samples, [n, ...] with n <= count, mapped from their file, on every process.

    Raises:
        UserError: no sample is finite.
    """
    count = config.evaluation.num_samples if count is None else count
    path = image_path(out, step)
    file = path.with_suffix(".npy")
    rounds = experiment.sampler(params, jax.random.key(config.sampling.seed), count)
    if jax.process_index() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = _write(file, rounds, (count, *data.train.shape[1:]), data.train.dtype, between)
        if kept < count:
            log.warning("%s of %s samples are not finite, and are left out", f"{count - kept:,}", f"{count:,}")
    else:
        for _ in rounds:  # all processes draw each round together
            pass
    parallel.barrier("samples written")
    samples = np.load(file, mmap_mode="r")
    if not len(samples):
        raise UserError(f"none of the {count:,} samples of step {step} is finite: the model or its sampler diverged")
    if jax.process_index() == 0:
        preview.draw(config, data, samples).savefig(path)
    return samples


def _write(file, rounds, shape, dtype, between):
    """Writes the finite samples round by round, so that a large set never lies in memory; returns their number."""
    partial, kept = file.with_name(file.name + ".partial"), 0
    stored = np.lib.format.open_memmap(partial, "w+", dtype, shape)
    for drawn in rounds:
        finite = drawn[np.all(np.isfinite(drawn), axis=tuple(range(1, drawn.ndim)))]
        stored[kept : kept + len(finite)] = pixels.as_stored(finite, dtype)
        kept += len(finite)
        between()
    if kept < len(stored):
        np.save(file, stored[:kept])
        partial.unlink()
    else:
        stored.flush()
        os.replace(partial, file)
    return kept
