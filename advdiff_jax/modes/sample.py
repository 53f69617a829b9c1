"""`--mode=sample`: draws from the newest checkpoint of a run, or from the model that it starts from."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.builders.experiment import Experiment, build_experiment
from advdiff_jax.builders.pretrained import check_same, restore
from advdiff_jax.modes import PREVIEWS, preview
from advdiff_jax.training import parallel
from advdiff_jax.training.checkpoint import Restored


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Draws `evaluation.num_samples` samples from the run in `folder` into samples/; returns the image.

    Raises:
        UserError: see `open_run`.
    """
    opened = open_run(config, folder)
    state = opened.restored.state
    draw(config, opened.data, opened.experiment, opened.out, int(state.step), parallel.replicate(state.ema_params))
    return image_path(opened.out, int(state.step))


class Opened(NamedTuple):
    """A run to be sampled, evaluated or exported.

    Attributes:
        out: folder for results.
        data: of the config.
        experiment: of the config.
        restored: its newest checkpoint; of a run without one, the model that it starts from.
    """

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
    data = build_data(config)
    experiment = build_experiment(config, data.train.shape[1:])
    if fresh:
        check_same(config)
    restored = restore(config, experiment, folder)
    return Opened(_claim(config, folder, evaluate_only=False) if fresh else out, data, experiment, restored)


def _claim(config, folder, evaluate_only):
    return workdir.claim(config, folder, evaluate_only, PREVIEWS) if jax.process_index() == 0 else folder


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

    Args:
        config: a resolved config.
        data: sets the limits of the image.
        experiment: has the sampler.
        out: folder of the results.
        step: of the checkpoint; names the files.
        params: averaged parameters, as `parallel.replicate` lays them out.
        between: called between rounds of sampling; may raise.
        count: number of samples; None: `evaluation.num_samples`.

    Returns:
        samples [count, ...], on every process.
    """
    count = config.evaluation.num_samples if count is None else count
    samples = experiment.sampler(params, jax.random.key(config.sampling.seed), count, between)
    if jax.process_index() == 0:
        path = image_path(out, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".npy"), samples)
        preview.draw(config, data, samples).savefig(path)
    return samples
