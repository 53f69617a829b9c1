"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.training import levels


class TrainState(NamedTuple):
    """A pytree of arrays; all that a resumed run needs besides its config.

    Attributes:
        step: optimiser steps done, [] int32; also the position in the data.
        params: network parameters.
        opt_state: state of the optax optimiser.
        ema_params: exponential moving average of `params`, used for sampling.
        levels: how much of the noise the model tells at each noise level, measured while it trains by plain denoising.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any
    levels: levels.Levels


def create(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step; the average starts at the initial parameters."""
    copied = jax.tree.map(jnp.copy, params)  # the state is donated: no two leaves may share a buffer
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), copied, levels.create())
