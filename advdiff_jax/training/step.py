"""The pure train step: (state, keys, batch) -> (state, metrics)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.data.wire import to_float
from advdiff_jax.training.state import TrainState


def make_train_step(
    apply: Callable[..., jax.Array],
    objective: Callable,
    training_time: Callable[[jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    average: Callable = lambda tree: tree,
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the step.

    Args:
        apply: (params, x [B, ...], t [B], dropout_keys [B]) -> prediction [B, ...].
        objective: see `advdiff_jax.objectives`; its [B] losses are averaged here and nowhere else.
        training_time: u ~ U[0, 1) -> time.
        optimizer: an optax transformation.
        ema_decay: decay of the average of the parameters; ramped up as min(decay, (1 + step) / (10 + step)), so that
            short runs do not average over their initialisation.
        average: mean of a pytree over devices; the identity on one.

    Returns:
        train_step(state, keys, x0): one typed key per example [B], clean-or-dirty data [B, ...], of which uint8 pictures
        are taken to [-1, 1] here, on the device. Metrics are means over
        the batch: `loss`, those of the objective, and `grad_norm`.
    """

    def loss_fn(params, keys, x0):
        time_keys, objective_keys, dropout_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
        t = training_time(jax.vmap(jax.random.uniform)(time_keys))
        # The dropout keys are fixed here: within a step the network is one function, with one mask per example.
        loss, aux = objective(lambda x, t: apply(params, x, t, dropout_keys), objective_keys, x0, t)
        return jnp.mean(loss), {"loss": loss, **aux}

    def train_step(state, keys, x0):
        gradients, aux = jax.grad(loss_fn, has_aux=True)(state.params, keys, to_float(x0))
        gradients, metrics = average((gradients, jax.tree.map(jnp.mean, aux)))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema_params = optax.incremental_update(params, state.ema_params, 1.0 - decay)
        metrics["grad_norm"] = optax.global_norm(gradients)
        return TrainState(state.step + 1, params, opt_state, ema_params), metrics

    return train_step
