"""A small U-Net and random parameters, for tests of networks."""

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)
SMALL = {"base_channels": 8, "channel_mults": (1, 2), "res_blocks": 1, "attention_resolutions": (4,), "heads": 2}


def random_params(network, x):
    """Draws variables of the network without zeros: layers that start at zero would hide the layers before them."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(network.init, KEY, x, jnp.zeros(len(x)))
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, leaf.dtype), shapes)
