"""U-Net of DDPM (Ho et al. 2020) and Improved-DDPM (Nichol & Dhariwal 2021)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.layers import (
    ResBlock,
    SelfAttention,
    conv3x3,
    downsample,
    group_norm,
    sinusoidal_embedding,
    upsample,
)


class UNet(nn.Module):
    """Maps images x [B, H, W, C] at times t [B] to a prediction [B, H, W, outputs * C].

    Attributes:
        base_channels: channels at full resolution.
        channel_mults: channels of each level over `base_channels`; each level after the first has half the resolution.
        res_blocks: residual blocks of a level on the way down; the way up has one more.
        attention_resolutions: heights of the feature maps that get self-attention; the middle always has it.
        heads: attention heads; must divide the channels of each level with attention.
        dropout: dropout rate in the residual blocks.
        scale_shift: Improved-DDPM's scale-shift norm instead of DDPM's addition of the time embedding.
        time_scale: the embedding sees `time_scale * t`; 1000 gives DDPM's time steps.
        dtype: dtype of the activations; parameters, time embedding, statistics of norms, softmax and output are float32.
        outputs: output channels over input channels; 2 if the variance is learnt as well.
        remat: the backward pass computes the inside of each block again instead of keeping it.

    Raises:
        InvalidArgument: there is no level, H or W is not divisible by 2^(levels - 1), no level has a height in
            `attention_resolutions`, or `heads` does not divide the channels of a level with attention.
    """

    base_channels: int = 128
    channel_mults: Sequence[int] = (1, 2, 2, 2)
    res_blocks: int = 2
    attention_resolutions: Sequence[int] = (16,)
    heads: int = 4
    dropout: float = 0.0
    scale_shift: bool = False
    time_scale: float = 1000.0
    dtype: jnp.dtype = jnp.float32
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, train: bool = False) -> jax.Array:
        self._check(x.shape[1], x.shape[2])
        embedding = self._embed(t)

        def residual(h, features, name):
            kind = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock
            return kind(features, self.dropout, self.scale_shift, self.dtype, name=name)(h, embedding, train)

        def block(h, features, name):
            h = residual(h, features, name)
            return self._attend(h, f"{name}_attention") if h.shape[1] in self.attention_resolutions else h

        h = conv3x3(self.base_channels, self.dtype, name="conv_in")(x)
        skips = [h]
        for level, mult in enumerate(self.channel_mults):
            for i in range(self.res_blocks):
                h = block(h, mult * self.base_channels, f"down{level}_{i}")
                skips.append(h)
            if level < len(self.channel_mults) - 1:
                h = downsample(h, self.dtype, f"down{level}_half")
                skips.append(h)

        bottom = self.channel_mults[-1] * self.base_channels
        h = residual(h, bottom, "middle_0")
        h = self._attend(h, "middle_attention")
        h = residual(h, bottom, "middle_1")

        for level, mult in reversed(list(enumerate(self.channel_mults))):
            for i in range(self.res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(h, mult * self.base_channels, f"up{level}_{i}")
            if level:
                h = upsample(h, self.dtype, f"up{level}_double")

        h = nn.silu(group_norm(h, jnp.float32, "norm_out"))
        return conv3x3(self.outputs * x.shape[-1], jnp.float32, zero=True, name="conv_out")(h)

    def _check(self, height, width):
        mults = tuple(self.channel_mults)
        if not mults:
            raise InvalidArgument("channel_mults=() has no level: set one multiple for each level, such as (1, 2, 2)")
        factor = 2 ** (len(mults) - 1)
        if height % factor or width % factor:
            raise InvalidArgument(
                f"channel_mults={mults} needs images divisible by {factor}, not {height}x{width}: set fewer levels"
            )
        heights = [height // 2**level for level in range(len(mults))]
        if missing := sorted(set(self.attention_resolutions) - set(heights)):
            raise InvalidArgument(
                f"attention_resolutions={tuple(self.attention_resolutions)}: no level has height "
                f"{', '.join(map(str, missing))}; set some of the heights {', '.join(map(str, heights))}, or () for attention "
                "in the middle alone"
            )
        for level, mult in enumerate(mults):
            middle = level == len(mults) - 1  # has the last level's channels
            attends = middle or heights[level] in self.attention_resolutions
            if attends and mult * self.base_channels % self.heads:
                raise InvalidArgument(
                    f"heads={self.heads} does not divide the {mult * self.base_channels} channels of level {level}, which has "
                    "attention: set a divisor"
                )

    def _embed(self, t):
        width = 4 * self.base_channels
        h = sinusoidal_embedding(self.time_scale * t, self.base_channels)
        h = nn.silu(nn.Dense(width, name="time_0")(h))
        return nn.Dense(width, name="time_1")(h)

    def _attend(self, h, name):
        kind = nn.remat(SelfAttention) if self.remat else SelfAttention
        return kind(self.heads, self.dtype, name=name)(h)
