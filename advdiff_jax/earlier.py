"""What an earlier run left in its workdir: its newest checkpoint, and a new run that begins from it (`init_from`)."""

import logging
import pathlib
from collections.abc import Callable

import jax
import ml_collections

from advdiff_jax import builders, workdir
from advdiff_jax.errors import UserError
from advdiff_jax.training import levels, state
from advdiff_jax.training.checkpoint import Checkpointer, Restored

log = logging.getLogger(__name__)

# How a network was trained, which a run that begins from it may do otherwise.
OF_TRAINING = (
    "network.dropout",
    "network.dtype",
    "diffusion.edm_log_mean",
    "diffusion.edm_log_std",
    "diffusion.vlb_weight",
    "diffusion.vlb_bins",
)


def newest(folder: pathlib.Path, experiment: builders.Experiment) -> Restored:
    """The newest good checkpoint of the run in `folder`; raises UserError if there is none."""
    like = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    checkpointer = Checkpointer(folder / "checkpoints", read_only=True)
    restored = checkpointer.restore(like)
    checkpointer.close()
    if restored is None:
        raise UserError(f"{folder} holds no checkpoint yet: train first (--mode=train)")
    return restored


def begin_from(
    config: ml_collections.ConfigDict, experiment: builders.Experiment, folder: pathlib.Path
) -> Callable[[state.TrainState], state.TrainState]:
    """What becomes of a fresh state: with `init_from`, the averaged parameters of a finished run, and what it measured.

    Args:
        config: of the run that begins.
        experiment: what is built from it.
        folder: its workdir.

    Returns:
        state -> state, the identity without `init_from`, or where `folder` has a checkpoint to go on from.

    Raises:
        UserError: `init_from` has no usable checkpoint, is of another network or process, or has not measured what is needed;
            one that is not finished is warned of.
    """
    saved = any(child.name.isdigit() for child in (folder / "checkpoints").glob("*"))
    if not config.init_from or saved:
        return lambda fresh: fresh
    other = pathlib.Path(config.init_from).expanduser().absolute()
    if (other / "config.json").exists():
        mine, theirs = workdir.flatten(config), workdir.read_config(other / "config.json")
        same = [key for key in mine if key.startswith(("network.", "diffusion.")) and key not in OF_TRAINING]
        if differing := [
            f"{key} ({theirs.get(key)!r} there, {mine[key]!r} here)" for key in same if mine[key] != theirs.get(key)
        ]:
            raise UserError(f"config.init_from={config.init_from} is of another network or process: {', '.join(differing)}")
    if other.exists() and not (other / "results.json").exists():
        log.warning("config.init_from=%s is not a finished run: this one begins from its newest checkpoint", config.init_from)
    try:
        before = newest(other, experiment).state
    except UserError as error:
        raise UserError(f"config.init_from={config.init_from} cannot be begun from: {error}") from error
    if config.robust.weight == "adaptive" and not (experiment.plan.start or levels.is_measured(before.levels)):
        raise UserError(
            f"config.init_from={config.init_from} has measured no noise level, for want of plain steps: set "
            "config.robust.start_step above 0"
        )
    params = before.ema_params
    return lambda fresh: fresh._replace(params=params, ema_params=params, levels=before.levels)
