"""`--mode=sample`: draws from the newest checkpoint of a run, or from the model that it starts from."""

import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders import levels, noise_file
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.builders.experiment import Experiment, build_experiment, sampling_params
from advdiff_jax.builders.masks import build_mask, mask_bank
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.pretrained import check_same, restore
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.modes import PREVIEWS, preview, sample_files
from advdiff_jax.training import parallel
from advdiff_jax.training.checkpoint import Restored

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Draws `evaluation.num_samples` samples from the run in `folder` into samples/; returns the image.

    Raises:
        UserError: see `open_run`.
    """
    opened = open_run(config, folder)
    config, state = opened.config, opened.restored.state
    samples = draw(config, opened.data, opened.experiment, opened.out, int(state.step), _replicated(config, state))
    if jax.process_index() == 0:
        write_files(config, opened.out, samples)
    return image_path(opened.out, int(state.step))


def _replicated(config, state):
    return parallel.replicate(sampling_params(config, state))


class Opened(NamedTuple):
    """A run to be sampled, evaluated or exported.

    Attributes:
        config: with what the run has measured, see `levels.located`.
        out: folder for results.
        data: of the config.
        experiment: of the config.
        restored: its newest checkpoint; of a run without one, the model that it starts from.
    """

    config: ml_collections.ConfigDict
    out: pathlib.Path
    data: Data
    experiment: Experiment
    restored: Restored


def open_run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Opened:
    """Opens the run in `folder`. A config with `init_from` needs none: its model is claimed as a run of no steps, if it fits.

    Raises:
        UserError: see `builders` and `workdir.claim`, or there is neither a checkpoint nor a model.
    """
    fresh = bool(config.init_from) and not (folder / "config.json").exists()
    out = folder if fresh else _claim(config, folder, evaluate_only=True)
    if fresh and jax.process_index() == 0:
        (folder / noise_file.FILE).unlink(missing_ok=True)  # of a model that did not fit: it may have had other data
    data = build_data(config)
    found = levels.measured(config, data, folder)
    if found.sampling.final_denoise == noise_file.LEARNT and objective_spec(config).by_level:
        log.warning("no final step: what the model has learnt of the noise is in the noise.npz of its run, which is not here")
    masks = None
    if objective_spec(config).gives_mask:
        masks = mask_bank(build_mask(config, data.source, data.corrupted), len(data.corrupted))
    experiment = build_experiment(found, data.train.shape[1:], masks)
    if fresh:
        check_same(config)
    restored = restore(found, experiment, folder)
    return Opened(found, _claim(config, folder, evaluate_only=False) if fresh else out, data, experiment, restored)


def _claim(config, folder, evaluate_only):
    out = workdir.claim(config, folder, evaluate_only, (*PREVIEWS, noise_file.FILE)) if jax.process_index() == 0 else folder
    return pathlib.Path(parallel.gather(str(out))[0])  # the first process knows


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


def write_files(config: ml_collections.ConfigDict, out: pathlib.Path, samples: np.ndarray) -> None:
    """Writes samples of images for other programs: `out`/samples.npz and, with `sampling.png`, the folder samples_png."""
    if samples.ndim == 4 and samples.shape[-1] in (1, 3):
        sample_files.write_npz(out / "samples.npz", samples)
        if config.sampling.png:
            sample_files.write_pngs(out / "samples_png", samples)


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
