"""Blocks of the Improved-DDPM U-Net (Nichol & Dhariwal 2021), channels last; norms and softmax compute in float32."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def sinusoidal_embedding(t: jax.Array, features: int, max_period: float = 10_000.0) -> jax.Array:
    """Computes DDPM's transformer embedding of times: [B] -> [B, features], cosines then sines of geometric frequencies."""
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / half)
    angles = t[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def group_norm(x: jax.Array, dtype: jnp.dtype, name: str) -> jax.Array:
    """Applies GroupNorm as in DDPM: 32 groups, or fewer, so that a group has at least 4 channels and all have equally many.

    It computes in float32, and the result has `dtype`.
    """
    channels = x.shape[-1]
    groups = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name)(x)


def conv3x3(features: int, dtype: jnp.dtype, stride: int = 1, zero: bool = False, name: str | None = None) -> nn.Conv:
    """Builds a 3x3 convolution; `zero` initialises its kernel to zero, so that a residual block starts as the identity."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(features, (3, 3), (stride, stride), padding=1, dtype=dtype, kernel_init=init, name=name)


class ResBlock(nn.Module):
    """Residual block: GroupNorm, SiLU, conv; time embedding; GroupNorm, SiLU, dropout, conv; skip.

    Attributes:
        features: output channels.
        dropout: dropout rate before the second convolution.
        scale_shift: the embedding scales and shifts the second norm (Improved-DDPM); otherwise it is added (DDPM).
        dtype: dtype of the activations.
    """

    features: int
    dropout: float
    scale_shift: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, train: bool) -> jax.Array:
        h = conv3x3(self.features, self.dtype, name="conv_in")(nn.silu(group_norm(x, self.dtype, "norm_in")))
        width = 2 * self.features if self.scale_shift else self.features
        projected = nn.Dense(width, dtype=self.dtype, name="embedding")(nn.silu(embedding))[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(projected, 2, axis=-1)
            h = group_norm(h, self.dtype, "norm_out") * (1.0 + scale) + shift
        else:
            h = group_norm(h + projected, self.dtype, "norm_out")
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv3x3(self.features, self.dtype, zero=True, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + h


class SelfAttention(nn.Module):
    """Residual self-attention over the positions of an image, [B, H, W, C] -> [B, H, W, C]; its output starts at zero.

    Attributes:
        heads: number of heads; must divide the channels.
        dtype: dtype of the activations.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        tokens = group_norm(x, self.dtype, "norm").reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(tokens)
        q, k, v = jnp.split(qkv.reshape(batch, height * width, self.heads, -1), 3, axis=-1)
        mixed = nn.dot_product_attention(q, k, v, dtype=self.dtype, force_fp32_for_softmax=True)
        mixed = mixed.reshape(batch, height * width, channels)
        out = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(mixed)
        return x + out.reshape(x.shape)


def downsample(x: jax.Array, dtype: jnp.dtype, name: str) -> jax.Array:
    """Halves the resolution by a strided convolution."""
    return conv3x3(x.shape[-1], dtype, stride=2, name=name)(x)


def upsample(x: jax.Array, dtype: jnp.dtype, name: str) -> jax.Array:
    """Doubles the resolution by nearest-neighbour upsampling and a convolution."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return conv3x3(x.shape[-1], dtype, name=name)(x)
