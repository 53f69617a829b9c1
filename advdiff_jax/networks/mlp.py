"""Multilayer perceptron for points."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.networks.layers import sinusoidal_embedding


class MLP(nn.Module):
    """Maps x [B, D] at times t [B] to a prediction [B, outputs * D]; the time embedding enters every layer.

    Attributes:
        width: units of each hidden layer.
        depth: number of hidden layers.
        time_features: width of the sinusoidal embedding.
        time_scale: the embedding sees `time_scale * t`.
        dtype: dtype of the activations; parameters, time embedding and output are float32.
        outputs: output channels over input channels; 2 if the variance is learnt as well.
    """

    width: int = 128
    depth: int = 3
    time_features: int = 64
    time_scale: float = 1000.0
    dtype: jnp.dtype = jnp.float32
    outputs: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, train: bool = False) -> jax.Array:
        del train  # no dropout
        embedding = sinusoidal_embedding(self.time_scale * t, self.time_features)
        embedding = nn.silu(nn.Dense(self.width, name="time")(embedding))
        h = nn.Dense(self.width, dtype=self.dtype, name="in")(x)
        for i in range(self.depth):
            shift = nn.Dense(self.width, dtype=self.dtype, name=f"shift_{i}")(embedding)
            h = nn.silu(nn.Dense(self.width, dtype=self.dtype, name=f"hidden_{i}")(nn.silu(h + shift)))
        return nn.Dense(self.outputs * x.shape[-1], dtype=jnp.float32, kernel_init=nn.initializers.zeros, name="out")(h)
