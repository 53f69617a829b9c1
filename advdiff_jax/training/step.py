"""The pure train step: (state, keys, batch) -> (state, metrics)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.data.wire import to_float
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.training import levels
from advdiff_jax.training.levels import Levels
from advdiff_jax.training.state import TrainState


def make_train_step(
    apply: Callable[..., jax.Array],
    objective_at: Callable[[Levels], Callable],
    schedule: Schedule,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    average: Callable = lambda tree: tree,
    measure_until: int = 0,
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the step.

    Args:
        apply: (params, x [B, ...], t [B], dropout_keys [B]) -> prediction [B, ...].
        objective_at: levels -> objective, see `advdiff_jax.objectives`; its [B] losses are averaged here and nowhere else.
            An objective that looks at how well the model does at each noise level is built inside the step.
        schedule: the process; its `training_time` draws t.
        optimizer: an optax transformation.
        ema_decay: decay of the average of the parameters; ramped up as min(decay, (1 + step) / (10 + step)), so that
            short runs do not average over their initialisation.
        average: mean of a pytree over devices; the identity on one.
        measure_until: steps before this one add the batch's `noise_error` to the state's levels: those before a second term
            comes in, which changes the error.

    Returns:
        train_step(state, keys, batch): one typed key per example [B], clean-or-dirty data [B, ...], of which uint8 pictures
        are taken to [-1, 1] here, on the device; or a tuple of these and what the objective is told of each example.
        Metrics are means over the batch: `loss`, those of the objective, and `grad_norm`.
    """
    update = make_update(optimizer, ema_decay)

    def loss_fn(params, seen, keys, x0, *known):
        t, objective_keys, dropout_keys = draw_times(keys, schedule)

        def predict(x, t, rows=slice(None)):
            # The dropout keys are fixed here: within a step the network is one function, with one mask per example.
            return apply(params, x, t, dropout_keys[rows])

        loss, aux = objective_at(seen)(predict, objective_keys, x0, t, *known)
        return jnp.mean(loss), ({"loss": loss, **aux}, t)

    def train_step(state, keys, batch):
        x0, *known = jax.tree.leaves(batch)
        gradients, (aux, t) = jax.grad(loss_fn, has_aux=True)(state.params, state.levels, keys, to_float(x0), *known)
        error, seen = aux.pop("noise_error", None), state.levels
        if error is not None and measure_until:
            updated = average(levels.update(seen, schedule.noise_to_signal(t), error))
            seen = jax.tree.map(functools.partial(jnp.where, state.step < measure_until), updated, seen)
        gradients, metrics = average((gradients, jax.tree.map(jnp.mean, aux)))
        metrics["grad_norm"] = optax.global_norm(gradients)
        state = update(state, gradients)
        return state._replace(step=state.step + 1, levels=seen), metrics

    return train_step


def draw_times(keys: jax.Array, schedule: Schedule) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a step draws from its keys [B]: times [B], keys of the objective [B], keys of the dropout [B]."""
    time_keys, objective_keys, dropout_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    return schedule.training_time(jax.vmap(jax.random.uniform)(time_keys)), objective_keys, dropout_keys


def make_update(optimizer: optax.GradientTransformation, ema_decay: float) -> Callable[[TrainState, dict], TrainState]:
    """Builds update(state, gradients) -> the state after the optimiser and the average of parameters; `step` stays."""

    def update(state, gradients):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema_params = optax.incremental_update(params, state.ema_params, 1.0 - decay)
        return state._replace(params=params, opt_state=opt_state, ema_params=ema_params)

    return update
