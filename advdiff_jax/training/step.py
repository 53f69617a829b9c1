"""The pure train step: (state, keys, batch) -> (state, metrics)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advdiff_jax import rng
from advdiff_jax.data.pixels import to_float
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.training import noise_floor
from advdiff_jax.training.accumulate import over_micro_batches
from advdiff_jax.training.state import TrainState


def make_train_step(
    apply: Callable[..., jax.Array],
    objective_at: Callable[[TrainState], Callable],
    schedule: Schedule,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    average: Callable = lambda tree: tree,
    measure_until: int = 0,
    evaluate: Callable[..., jax.Array] | None = None,
    more_ema_decays: Sequence[float] = (),
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
            plain denoising steps by the square: a penalty or another criterion changes the error.
        evaluate: (params, x [B, ...], t [B]) -> prediction without dropout, whose error is measured, at the price of a forward
            pass; None: `apply` has no dropout.
        more_ema_decays: of the averages `more_ema` of the state.

    Returns:
        train_step(state, keys, batch, micro_batches=1): takes one typed key per example [B] and a batch of `data.batches`:
        `examples` [B, ...], of which uint8 images are scaled to [-1, 1] here, on the device; perhaps `time_quantile` [B], which
        sets the times; and further entries, which the objective takes as keyword arguments. The gradient runs on
        `micro_batches` equal parts in turn. Metrics are means over the batch: `loss`, those of the objective, and `grad_norm`;
        and `skipped`, 1 where the update was not finite and the state, but for its step, stayed.
    """
    update = make_update(optimizer, ema_decay, more_ema_decays, ema_ramp)

    def loss_fn(objective, params, keys, examples, known):
        known = dict(known)
        x0 = to_float(examples)
        t, objective_keys, dropout_keys = draw(keys, schedule, known.pop("time_quantile", None))

        def predict(x, t, rows=slice(None)):
            # The dropout keys are fixed here: within a step the network is one function, with one mask per example.
            return apply(params, x, t, dropout_keys[rows])

        loss, aux = objective(predict, objective_keys, x0, t, **known)
        if measure_until and evaluate:
            _, measured = objective(functools.partial(evaluate, params), objective_keys, x0, t, **known)
            aux["noise_error"] = measured["noise_error"]
        return jnp.mean(loss), ({"loss": loss, **aux}, t)

    def train_step(state, keys, batch, micro_batches=1):
        known = {name: value for name, value in batch.items() if name != "examples"}
        stats, loss = state.noise_floor, functools.partial(loss_fn, objective_at(state))
        gradient = over_micro_batches(jax.grad(loss, has_aux=True), micro_batches)
        gradients, (aux, t) = gradient(state.params, keys, batch["examples"], known)
        error = aux.pop("noise_error", None)
        gradients, metrics = average((gradients, jax.tree.map(jnp.mean, aux)))
        metrics["grad_norm"] = optax.tree.norm(gradients)
        updated, metrics["skipped"] = update(state, gradients)
        if error is not None and measure_until:
            seen = average(noise_floor.update(stats, schedule.noise_to_signal(t), error))
            counts = (state.step < measure_until) & (metrics["skipped"] == 0)
            stats = jax.tree.map(functools.partial(jnp.where, counts), seen, stats)
        return updated._replace(step=state.step + 1, noise_floor=stats), metrics

    return train_step


class StepDraws(NamedTuple):
    """Random draws of a step, [B] each: times, keys of the objective, keys of the dropout masks."""

    t: jax.Array
    objective_keys: jax.Array
    dropout_keys: jax.Array


def draw(keys: jax.Array, schedule: Schedule, quantile: jax.Array | None = None) -> StepDraws:
    """Draws the times of a step, unless their quantiles [B] are given, and splits its typed keys [B] by purpose."""
    time_keys, objective_keys, dropout_keys = rng.split(keys, 3)
    quantile = rng.uniform(time_keys) if quantile is None else quantile
    return StepDraws(schedule.training_time(quantile), objective_keys, dropout_keys)


def make_update(
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    more_ema_decays: Sequence[float] = (),
    ema_ramp: bool = True,
) -> Callable[[TrainState, Any], tuple[TrainState, jax.Array]]:
    """Builds update(state, gradients) -> (the state after an optimiser and EMA update, 0); `step` stays.

    Where the norm of the gradient is not finite, the result is (the same state, 1): a single bad batch costs one update. Finite
    gradients make finite updates, so the state is always finite.
    """

    def moved(state, gradients):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        def averaged(ema, decay):
            reached = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step)) if ema_ramp else decay
            return optax.incremental_update(params, ema, 1.0 - reached)

        more = tuple(averaged(ema, decay) for ema, decay in zip(state.more_ema, more_ema_decays, strict=True))
        ema_params = averaged(state.ema_params, ema_decay)
        return state._replace(params=params, opt_state=opt_state, ema_params=ema_params, more_ema=more)

    def update(state, gradients):
        finite = jnp.isfinite(optax.tree.norm(gradients))
        # Not a select, which would keep the old state beside the new: twice the time of the update, and its memory.
        return jax.lax.cond(finite, moved, lambda state, gradients: state, state, gradients), 1.0 - finite

    return update
