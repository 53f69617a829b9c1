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
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any
    noise_floor: noise_floor.NoiseFloorStats


def create(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step; the average starts at the initial parameters."""
    copied = jax.tree.map(jnp.copy, params)  # the state is donated: no two leaves may share a buffer
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), copied, noise_floor.create())
