"""A run that starts from another model's parameters (`config.init_from`)."""

import logging
import pathlib
from collections.abc import Callable

import ml_collections

from advdiff_jax.builders import pretrained
from advdiff_jax.builders.experiment import Experiment
from advdiff_jax.builders.noise_file import follows_training
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.errors import UserError
from advdiff_jax.training import noise_floor, state
from advdiff_jax.training.checkpoint import has_checkpoint

log = logging.getLogger(__name__)


def warm_start(
    config: ml_collections.ConfigDict, experiment: Experiment, folder: pathlib.Path
) -> Callable[[state.TrainState], state.TrainState]:
    """Builds what becomes of an initial state: with `init_from`, the averaged parameters and noise floor of another model.

    Args:
        config: of the run that starts.
        experiment: built from it.
        folder: its workdir.

    Returns:
        state -> state, the identity without `init_from`, or where `folder` has a checkpoint to resume from.

    Raises:
        UserError: `init_from` has no usable model, is of another network or process, or has no noise-floor estimate
            for a weight that follows it; an unfinished run is warned of.
    """
    if not config.init_from or has_checkpoint(folder):
        return lambda fresh: fresh
    pretrained.check_same(config)
    other = pretrained.path_of(config.init_from)
    if has_checkpoint(other) and not (other / "results.json").exists():
        log.warning("config.init_from=%s is not finished: this run starts from its newest checkpoint", config.init_from)
    before = pretrained.read_initial(config, experiment)
    follows = "robust.weight" in objective_spec(config).reads and follows_training(config)
    if follows and not (experiment.step_schedule.start or noise_floor.is_measured(before.noise_floor)):
        raise UserError(
            f"config.init_from={config.init_from} has no noise-floor estimate because it ran no plain denoising steps: set "
            "config.robust.start_step above 0"
        )
    params = before.params
    return lambda fresh: fresh._replace(
        params=params, ema_params=params, noise_floor=before.noise_floor, more_ema=tuple(params for _ in fresh.more_ema)
    )
