"""The state that a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.training import noise_floor


class TrainState(NamedTuple):
    """A pytree of arrays: everything that a resumed run needs besides its config.

    Attributes:
        step: optimiser steps done, [] int32; also the position in the data.
        params: network parameters.
        opt_state: state of the optax optimiser.
        ema_params: exponential moving average of `params`, used for sampling.
        noise_floor: how much noise variance the model explains at each noise level, measured in plain denoising steps.
        more_ema: further averages of `params`, each with a decay of its own.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any
    noise_floor: noise_floor.NoiseFloorStats
    more_ema: tuple[Any, ...] = ()


def create(params: Any, optimizer: optax.GradientTransformation, more_ema: int = 0) -> TrainState:
    """Returns the state before the first step; the averages, `more_ema` of them besides the first, start at `params`."""
    # The state is donated: no two leaves may share a buffer.
    first, *more = (jax.tree.map(jnp.copy, params) for _ in range(1 + more_ema))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), first, noise_floor.create(), tuple(more))
