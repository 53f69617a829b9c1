"""The pure train step: (state, keys, batch) -> (state, metrics)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from advdiff_jax import rng
from advdiff_jax.data.pixels import to_float
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.training import noise_floor
from advdiff_jax.training.state import TrainState


def make_train_step(
    apply: Callable[..., jax.Array],
    objective_at: Callable[[TrainState], Callable],
    schedule: Schedule,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    average: Callable = lambda tree: tree,
    measure_until: int = 0,
    ema_ramp: bool = True,
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the train step.

    Args:
        apply: (params, x [B, ...], t [B], dropout_keys [B]) -> prediction [B, ...].
        objective_at: state -> objective, see `advdiff_jax.objectives`; its [B] losses are averaged here and nowhere else. It is
            called inside the step, because a weight may follow the noise floor and the step.
        schedule: the process; its `training_time` draws t.
        optimizer: an optax transformation.
        ema_decay: decay of the average of the parameters.
        ema_ramp: ramp the decay up as min(decay, (1 + step) / (10 + step)), so that short runs do not average over their
            initialisation; a run that starts from an average continues it without.
        average: mean of a pytree over devices; the identity on one.
        measure_until: steps before this one add the batch's `noise_error` to the state's noise-floor statistics. They must be
            plain denoising steps: a penalty changes the error.

    Returns:
        train_step(state, keys, batch): takes one typed key per example [B] and a batch of `data.batches`: `examples`
        [B, ...], of which uint8 images are scaled to [-1, 1] here, on the device, and further entries, which the objective
        takes as keyword arguments. Metrics are means over the batch: `loss`, those of the objective, and `grad_norm`.
    """
    update = make_update(optimizer, ema_decay, ema_ramp)

    def loss_fn(params, state, keys, x0, known):
        t, objective_keys, dropout_keys = draw(keys, schedule)

        def predict(x, t, rows=slice(None)):
            # The dropout keys are fixed here: within a step the network is one function, with one mask per example.
            return apply(params, x, t, dropout_keys[rows])

        loss, aux = objective_at(state)(predict, objective_keys, x0, t, **known)
        return jnp.mean(loss), ({"loss": loss, **aux}, t)

    def train_step(state, keys, batch):
        known = {name: value for name, value in batch.items() if name != "examples"}
        x0, stats = to_float(batch["examples"]), state.noise_floor
        gradients, (aux, t) = jax.grad(loss_fn, has_aux=True)(state.params, state, keys, x0, known)
        error = aux.pop("noise_error", None)
        if error is not None and measure_until:
            updated = average(noise_floor.update(stats, schedule.noise_to_signal(t), error))
            stats = jax.tree.map(functools.partial(jnp.where, state.step < measure_until), updated, stats)
        gradients, metrics = average((gradients, jax.tree.map(jnp.mean, aux)))
        metrics["grad_norm"] = optax.global_norm(gradients)
        state = update(state, gradients)
        return state._replace(step=state.step + 1, noise_floor=stats), metrics

    return train_step


class StepDraws(NamedTuple):
    """Random draws of a step, [B] each: times, keys of the objective, keys of the dropout masks."""

    t: jax.Array
    objective_keys: jax.Array
    dropout_keys: jax.Array


def draw(keys: jax.Array, schedule: Schedule) -> StepDraws:
    """Draws the times of a step, and splits its typed keys [B] by purpose."""
    time_keys, objective_keys, dropout_keys = rng.split(keys, 3)
    return StepDraws(schedule.training_time(rng.uniform(time_keys)), objective_keys, dropout_keys)


def make_update(
    optimizer: optax.GradientTransformation, ema_decay: float, ema_ramp: bool = True
) -> Callable[[TrainState, dict], TrainState]:
    """Builds update(state, gradients) -> the state after an optimiser and EMA update; `step` stays."""

    def update(state, gradients):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step)) if ema_ramp else ema_decay
        ema_params = optax.incremental_update(params, state.ema_params, 1.0 - decay)
        return state._replace(params=params, opt_state=opt_state, ema_params=ema_params)

    return update
