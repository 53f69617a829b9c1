r"""Free adversarial training (Shafahi et al. 2019; for diffusion Wang et al. 2025, arXiv 2502.17099): K updates a batch.

The backward pass to the parameters also yields the gradient of the perturbation. With (x0, t, eps) and the dropout masks held
fixed, from delta = 0 and for k = 1..K:

    g_params, g_delta = grad L(params, delta)
    params, average <- optimiser and EMA step with g_params
    delta <- project( delta + adv_lr g_delta / ||g_delta||_2 )       ||delta||_2 <= sqrt(D) max_norm, per example

As in the authors' code, delta starts at 0, so the first update is plain denoising; the last update does not move delta.
`adv_lr` and `max_norm` are in VP state units, as radii are; `scale` carries them to the process at hand.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.data.pixels import to_float
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import mean_square
from advdiff_jax.perturbation.ball import L2
from advdiff_jax.training.accumulate import over_micro_batches
from advdiff_jax.training.state import TrainState
from advdiff_jax.training.step import draw, make_update


def make_ascent(adv_lr: float = 0.1, max_norm: float = 0.1) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Builds ascend(delta [B, ...], gradient [B, ...], scale [B]) -> the next delta, in the L2 ball.

    Args:
        adv_lr: L2 norm of a step over all coordinates, in VP state units.
        max_norm: largest root mean square of delta, in VP state units.

    Raises:
        InvalidArgument: `adv_lr` or `max_norm` is not positive.
    """
    if adv_lr <= 0.0 or max_norm <= 0.0:
        raise InvalidArgument(f"need adv_lr > 0 and max_norm > 0, got {adv_lr} and {max_norm}")

    def ascend(delta, gradient, scale):
        # `steepest` has a root mean square of 1, hence a norm of sqrt(D).
        step = bcast(adv_lr / math.sqrt(math.prod(delta.shape[1:])) * scale, delta) * jax.vmap(L2.steepest)(gradient)
        return jax.vmap(L2.project)(delta + step, max_norm * scale)

    return ascend


def make_free_step(
    apply: Callable[..., jax.Array],
    objective_at: Callable[[TrainState], Callable],
    schedule: Schedule,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    average: Callable = lambda tree: tree,
    more_ema_decays: Sequence[float] = (),
    ema_ramp: bool = True,
    *,
    updates: int = 3,
    ascend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the step; unless stated here, arguments and result are those of `step.make_train_step`.

    Args:
        apply: as there.
        objective_at: state -> objective(predict, keys, x0, t, delta) -> (loss [B], aux), see `objectives.at_diff`.
        schedule: as there; its `scale` carries the ascent's lengths to the units of x_t.
        optimizer: as there; its schedules must count `updates` calls per step.
        ema_decay: as there, but per update.
        average: as there; delta stays on its device.
        more_ema_decays: as `ema_decay`.
        ema_ramp: as there.
        updates: K; static.
        ascend: built by `make_ascent`.

    Returns:
        train_step(state, keys, batch, micro_batches=1): metrics are those of the last update, and `delta_rms` of its
        perturbation.

    Raises:
        InvalidArgument: `updates` < 1.
    """
    if updates < 1:
        raise InvalidArgument(f"need updates >= 1, got {updates}")
    update = make_update(optimizer, ema_decay, more_ema_decays, ema_ramp)

    def loss_fn(objective, params, delta, keys, x0):
        t, objective_keys, dropout_keys = draw(keys, schedule)  # the same in every update
        loss, aux = objective(lambda x, t: apply(params, x, t, dropout_keys), objective_keys, x0, t, delta)
        return jnp.mean(loss), {"loss": loss, **aux}

    def gradient_fn(objective, params, delta, keys, x0):
        loss = functools.partial(loss_fn, objective)
        (of_params, of_delta), aux = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, delta, keys, x0)
        # Examples do not interact: row i of delta's gradient is example i's own over the count, and the ascent normalises it.
        return of_params, (of_delta, aux)

    def train_step(state, keys, batch, micro_batches=1):
        gradient = over_micro_batches(functools.partial(gradient_fn, objective_at(state)), micro_batches)
        x0 = to_float(batch["examples"])
        scales = schedule.scale(draw(keys, schedule).t)
        delta = jnp.zeros_like(x0)
        for number in range(updates):  # unrolled: K is small, and the compiler counts the FLOPs of a loop's body once
            of_params, (of_delta, aux) = gradient(state.params, delta, keys, x0)
            aux["delta_rms"] = jnp.sqrt(mean_square(delta))
            of_params, metrics = average((of_params, jax.tree.map(jnp.mean, aux)))
            state, skipped = update(state, of_params)
            if number + 1 < updates:
                delta = ascend(delta, of_delta, scales)
        metrics |= {"grad_norm": optax.tree.norm(of_params), "skipped": skipped}
        return state._replace(step=state.step + 1), metrics

    return train_step
