"""Blocks of the U-Nets of DDPM, Improved-DDPM and diffusers, channels last; norms and softmax compute in float32."""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.convolution import Conv


def sinusoidal_embedding(
    t: jax.Array,
    features: int,
    max_period: float = 10_000.0,
    *,
    flip_sin_to_cos: bool = True,
    freq_shift: int = 0,
) -> jax.Array:
    """Computes the transformer's embedding of times: [B] -> [B, features], of geometric frequencies.

    Args:
        t: times in steps, [B].
        features: width, even.
        max_period: 2 pi over the lowest frequency, nearly; see `freq_shift`.
        flip_sin_to_cos: cosines come first (Improved-DDPM), else sines (DDPM).
        freq_shift: 1 makes 1 / max_period the last frequency (DDPM), 0 the one after the last (Improved-DDPM).
    """
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / (half - freq_shift))
    angles = t[:, None] * frequencies
    sines_last = [jnp.cos(angles), jnp.sin(angles)]
    return jnp.concatenate(sines_last if flip_sin_to_cos else sines_last[::-1], axis=-1)


class Norms(NamedTuple):
    """The group norms of a network.

    Attributes:
        groups: number of groups; 0: 32, or fewer, so that a group has at least 4 channels and all have equally many.
        epsilon: added to the variance.
    """

    groups: int = 0
    epsilon: float = 1e-5

    def of(self, channels: int) -> int:
        """Returns the number of groups of a layer; raises InvalidArgument if it does not divide the channels."""
        if self.groups and channels % self.groups:
            raise InvalidArgument(f"norm_num_groups={self.groups} does not divide {channels} channels: set a divisor, or 0")
        automatic = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
        return self.groups or automatic


def group_norm(x: jax.Array, norms: Norms, dtype: jnp.dtype, name: str) -> jax.Array:
    """Applies GroupNorm; it computes in float32, and the result has `dtype`."""
    return nn.GroupNorm(norms.of(x.shape[-1]), epsilon=norms.epsilon, dtype=dtype, name=name)(x)


def conv3x3(features: int, dtype: jnp.dtype, zero: bool = False, name: str | None = None) -> nn.Conv:
    """Builds a 3x3 convolution; `zero` initialises its kernel to zero, so that a residual block starts as the identity."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return Conv(features, (3, 3), padding=1, dtype=dtype, kernel_init=init, name=name)


def keep(x: jax.Array) -> jax.Array:
    """Keeps the resolution."""
    return x


def halve(x: jax.Array) -> jax.Array:
    """Halves the resolution by the mean of 2x2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def double(x: jax.Array) -> jax.Array:
    """Doubles the resolution by nearest-neighbour upsampling."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class ResBlock(nn.Module):
    """Residual block: GroupNorm, SiLU, resampling, conv; time embedding; GroupNorm, SiLU, dropout, conv; skip.

    Attributes:
        features: output channels.
        dropout: dropout rate before the second convolution.
        scale_shift: the embedding scales and shifts the second norm (Improved-DDPM); otherwise it is added (DDPM).
        dtype: dtype of the activations.
        norms: the group norms.
        resample: `keep`, `halve` or `double`, applied to both branches.
    """

    features: int
    dropout: float
    scale_shift: bool
    dtype: jnp.dtype
    norms: Norms = Norms()
    resample: Callable[[jax.Array], jax.Array] = keep

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, train: bool) -> jax.Array:
        h = self.resample(nn.silu(group_norm(x, self.norms, self.dtype, "norm_in")))
        x = self.resample(x)
        h = conv3x3(self.features, self.dtype, name="conv_in")(h)
        width = 2 * self.features if self.scale_shift else self.features
        projected = nn.Dense(width, dtype=self.dtype, name="embedding")(nn.silu(embedding))[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(projected, 2, axis=-1)
            h = group_norm(h, self.norms, self.dtype, "norm_out") * (1.0 + scale) + shift
        else:
            h = group_norm(h + projected, self.norms, self.dtype, "norm_out")
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv3x3(self.features, self.dtype, zero=True, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + h


class SelfAttention(nn.Module):
    """Residual self-attention over the positions of an image, [B, H, W, C] -> [B, H, W, C]; its output starts at zero.

    Attributes:
        heads: number of heads; must divide the channels.
        dtype: dtype of the activations.
        norms: of the input; None: it has no norm.
    """

    heads: int
    dtype: jnp.dtype
    norms: Norms | None = Norms()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        normed = x if self.norms is None else group_norm(x, self.norms, self.dtype, "norm")
        tokens = normed.reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(tokens)
        q, k, v = jnp.split(qkv.reshape(batch, height * width, self.heads, -1), 3, axis=-1)
        mixed = nn.dot_product_attention(q, k, v, dtype=self.dtype, force_fp32_for_softmax=True)
        mixed = mixed.reshape(batch, height * width, channels)
        out = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(mixed)
        return x + out.reshape(x.shape)


def downsample(x: jax.Array, dtype: jnp.dtype, padding: int, name: str) -> jax.Array:
    """Halves the resolution by a strided 3x3 convolution; `padding` 1 is on all sides, 0 below and on the right (DDPM)."""
    sides = 1 if padding else ((0, 1), (0, 1))
    return Conv(x.shape[-1], (3, 3), (2, 2), padding=sides, dtype=dtype, name=name)(x)


def upsample(x: jax.Array, dtype: jnp.dtype, name: str) -> jax.Array:
    """Doubles the resolution by nearest-neighbour upsampling and a convolution."""
    return conv3x3(x.shape[-1], dtype, name=name)(double(x))
