"""`--mode=poison`: writes the clean training set of a config, poisoned against the network of another run.

Other runs train on it with `data.corruptions=("poison",)`; see `perturbation.poison` for the equation.
"""

import functools
import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.penalty import BALLS
from advdiff_jax.builders.pretrained import follow, is_diffusers, path_of, restore
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import as_user_error, build
from advdiff_jax.data import pixels, record_dataset
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.poison import make_poison
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Poisons the clean training set of `config` as `config.poison` says, into `folder`/poison/poison.array_record.

    Returns:
        the file, for `data.poison_file`.

    Raises:
        UserError: no such checkpoint, a checkpoint of another shape of data, or a bad value.
    """
    data, attacked = build_data(config), _attacked(config)
    experiment = build_experiment(attacked, data.source.train.shape[1:])
    restored = restore(attacked, experiment, path_of(config.poison.checkpoint))  # all processes open it
    return _write(config, folder, data, attacked, experiment, restored)


@parallel.on_first_process
def _write(config, folder, data, attacked, experiment, restored):
    c, clean, process = config.poison, data.source.train, build_process(attacked)
    with as_user_error("config.poison"):
        perturb = adversarial(build(BALLS, config, "poison.ball"), c.attack_steps, c.step_size, random_start=True)
        objective = denoising(process.schedule, process.parameterization)
        poison = make_poison(objective, process.schedule.training_time, perturb, c.radius, c.draws)

    @jax.jit
    def poison_batch(params, indices, x0):
        keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(config.seed), index))(indices)
        return poison(functools.partial(experiment.predict, params), keys, x0)

    out = folder / "poison" / "poison.array_record"
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "made_from": record_dataset.fingerprint(clean),
        "checkpoint": str(c.checkpoint),
        "checkpoint_step": int(restored.state.step),
        "poison": json.loads(c.to_json_best_effort()),
    }
    chunks = _chunks(poison_batch, restored.state.ema_params, clean, c.batch_size, data.train.dtype)
    record_dataset.write(out, chunks, clean.shape, about)
    log.info("train on it with: --config.data.corruptions='(\"poison\",)' --config.data.poison_file=%s", out)
    return out


def _attacked(config):
    """Reads the config of the model that is attacked."""
    checkpoint = config.poison.checkpoint
    path = path_of(checkpoint) / "config.json"
    if checkpoint and is_diffusers(checkpoint):
        attacked = config.copy_and_resolve_references()
        attacked.init_from = checkpoint
        follow(attacked)
        return attacked
    if not checkpoint or not path.exists():
        raise UserError(f"config.poison.checkpoint={checkpoint!r} holds no run: set the workdir of the run to attack")
    return workdir.run_config(path, config)


def _chunks(poison_batch, params, clean, batch_size, dtype):
    """Yields the poisoned data set in order; the last batch is filled up, so that one program serves all."""
    for first in range(0, len(clean), batch_size):
        indices = np.arange(first, first + batch_size) % len(clean)
        poisoned = np.asarray(poison_batch(params, indices, pixels.to_float(clean[indices])))
        kept = poisoned[: min(batch_size, len(clean) - first)]
        yield pixels.as_stored(kept, dtype)
        if first // batch_size % 50 == 0:
            log.info("poisoned %d of %d", first + len(kept), len(clean))
