r"""Adversarial poison: a training set moved, within a small ball, to where a trained network denoises it worst.

    x' = argmax_{||x' - x|| <= radius}  E_{t, eps} || eps_th(alpha(t) x' + sigma(t) eps, t) - eps ||^2

by PGD (`perturbation.adversarial`) against the averaged parameters of a run of ours, the expectation over a few fixed
draws of (t, eps) per example (AdvDM, Liang et al. 2023, arXiv 2302.04578). Written once; `data.corruptions=("poison",)`
then feeds it to other runs.
"""

import functools
import json
import logging
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import builders, builders_data, builders_process, choices, earlier
from advdiff_jax.builders_process import build_prediction
from advdiff_jax.data import stored, wire
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.perturbation.adversarial import Perturb, adversarial
from advdiff_jax.perturbation.ball import BALLS

log = logging.getLogger(__name__)


def poisoner(objective: Callable, training_time: Callable, perturb: Perturb, radius: float, draws: int) -> Callable:
    """Builds `poison(predict, keys [B], x0 [B, ...]) -> x' [B, ...]`, pure, in [-1, 1] for pictures that are.

    Args:
        objective: of `objectives.denoising`.
        training_time: u ~ U[0, 1) -> time.
        perturb: of `perturbation.adversarial`.
        radius: bound on a coordinate of x' - x0, in the data's units.
        draws: draws of (t, eps) per example; the same at every step of the ascent.

    Raises:
        ValueError: `radius` is negative or `draws` < 1.
    """
    if radius < 0.0 or draws < 1:
        raise ValueError(f"need radius >= 0 and draws >= 1, got {radius} and {draws}")

    def poison(predict, keys, x0):
        start_keys, draw_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)

        def one_draw(x, number):
            time_keys, noise_keys = jnp.moveaxis(
                jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(draw_keys), 1, 0
            )
            t = training_time(jax.vmap(jax.random.uniform)(time_keys))
            return objective(predict, noise_keys, x, t)[0]

        def loss(x):
            return jnp.mean(jax.lax.map(lambda number: one_draw(x, number), jnp.arange(draws)), axis=0)

        limit = jnp.maximum(1.0, jnp.max(jnp.abs(x0)))  # pictures stay pictures; points may lie anywhere
        delta = perturb(start_keys, loss, x0, jnp.full(x0.shape[:1], radius))
        return jnp.clip(x0 + delta, -limit, limit)

    return poison


def poison(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Poisons the clean training set of `config` as `config.poison` says, into `folder`/poison/poison.array_record.

    Returns:
        the file, to be named as `data.poison_file`.

    Raises:
        UserError: no such checkpoint, it is of another shape of data, or a value cannot be.
    """
    cfg, clean = config.poison, builders_data.build_data(config).source.train
    victim = _victim(cfg.checkpoint)
    experiment = builders.build(victim, clean.shape[1:])
    restored = earlier.newest(pathlib.Path(cfg.checkpoint).expanduser().absolute(), experiment)
    schedule = builders_process.build_schedule(victim)
    ball = choices.pick(BALLS, config, "poison.ball")
    try:
        perturb = adversarial(ball, cfg.attack_steps, cfg.step_size, random_start=True)
        parameterization = build_prediction(victim, schedule).parameterization
        attack = poisoner(denoising(schedule, parameterization), schedule.training_time, perturb, cfg.radius, cfg.draws)
    except ValueError as error:
        raise UserError(f"config.poison: {error}") from error

    @jax.jit
    def attack_batch(params, indices, x0):
        keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(config.seed), index))(indices)
        return attack(functools.partial(experiment.predict, params), keys, x0)

    out = folder / "poison" / "poison.array_record"
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "made_from": stored.fingerprint(clean),
        "checkpoint": str(cfg.checkpoint),
        "checkpoint_step": int(restored.state.step),
        "poison": json.loads(cfg.to_json_best_effort()),
    }
    stored.write(out, _chunks(attack_batch, restored.state.ema_params, clean, cfg.batch_size), clean.shape, about)
    log.info("use it: --config.data.corruptions='(\"poison\",)' --config.data.poison_file=%s", out)
    return out


def _victim(checkpoint):
    path = pathlib.Path(checkpoint).expanduser() / "config.json"
    if not checkpoint or not path.exists():
        raise UserError(
            f"config.poison.checkpoint={checkpoint!r} is no workdir of a run: name the one whose network is to be attacked"
        )
    try:
        return ml_collections.ConfigDict(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): name another config.poison.checkpoint") from error


def _chunks(attack_batch, params, clean, batch_size):
    """The poisoned data set in order; the last batch is filled up, so that one program serves all."""
    for first in range(0, len(clean), batch_size):
        indices = np.arange(first, first + batch_size) % len(clean)
        poisoned = np.asarray(attack_batch(params, indices, wire.to_float(clean[indices])))
        kept = poisoned[: min(batch_size, len(clean) - first)]
        yield wire.to_bytes(kept) if clean.dtype == np.uint8 else kept.astype(clean.dtype)
        if first // batch_size % 50 == 0:
            log.info("poisoned %d of %d", first + len(kept), len(clean))
