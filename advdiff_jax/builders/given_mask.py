"""Config -> how a network that is given a mask is evaluated away from its objective: with a mask like those of training."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import rng
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import Process
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.ambient_mask import given_mask, keep

MASK = 0x6D61736B  # folded into a sample's key for its mask, so that start and steps keep their draws


class GivenMask(NamedTuple):
    """What a mask adds to a network; nothing, where the objective gives it none.

    Attributes:
        channels: input channels of the mask, 0 or 1.
        inputs: (the network's state with these channels, t) -> inputs of the network, see `parameterization.inputs`.
        of_samples: (predict of the network, keys [B]) -> ordinary predict(x [B, ...], t), with one mask for each sample.
        fixed: predict of the network -> ordinary predict(x, t), with one mask for all.
    """

    channels: int
    inputs: Callable
    of_samples: Callable
    fixed: Callable


def build_given_mask(
    config: ml_collections.ConfigDict, process: Process, shape: tuple[int, ...], masks: np.ndarray | None
) -> GivenMask:
    """Builds `GivenMask`: a mask is a draw from `masks` [n, H, W, 1], masked further as in training.

    Args:
        config: reads the objective, `baselines.further`, `sampling.seed`.
        process: schedule and parameterisation.
        shape: of an example.
        masks: of training examples; None: all pixels are known.

    Raises:
        UserError: the objective gives a mask, and the examples are no images.
    """
    if not objective_spec(config).gives_mask:
        return GivenMask(0, process.inputs, lambda predict, keys: predict, lambda predict: predict)
    if len(shape) != 3:
        raise UserError(f"config.objective={config.objective} needs images, and data.source={config.data.source} has none")
    bank, channels = np.ones((1, *shape[:2], 1), bool) if masks is None else masks, shape[-1]

    def draw(keys):
        row_keys, keep_keys = rng.split(rng.fold_in(keys, MASK), 2)
        rows = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(bank)))(row_keys)
        return keep(keep_keys, jnp.asarray(bank)[rows], config.baselines.further)

    def inputs(x, t):
        state, time = process.inputs(x[..., :channels], t)
        return jnp.concatenate([state, x[..., channels:]], axis=-1), time  # a mask has no units

    def with_mask(predict, keys):
        return given_mask(process.schedule, process.parameterization, predict, draw(keys))

    return GivenMask(1, inputs, with_mask, lambda predict: with_mask(predict, jax.random.key(config.sampling.seed)[None]))
