"""U-Net of DDPM (Ho et al. 2020) and Improved-DDPM (Nichol & Dhariwal 2021), with the options of diffusers' `UNet2DModel`."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.layers import (
    Norms,
    ResBlock,
    SelfAttention,
    conv3x3,
    double,
    downsample,
    group_norm,
    halve,
    keep,
    sinusoidal_embedding,
    upsample,
)


class Level(NamedTuple):
    """A resolution of the U-Net, on the way down or up.

    Attributes:
        attention: its residual blocks are followed by self-attention.
        resample: how it is left for the next resolution, "conv" or "resnet"; None: as `downsample_type` or `upsample_type`.
    """

    attention: bool
    resample: str | None


# diffusers' names of the blocks that `UNet` has.
DOWN_BLOCKS = {
    "DownBlock2D": Level(False, "conv"),
    "AttnDownBlock2D": Level(True, None),
    "ResnetDownsampleBlock2D": Level(False, "resnet"),
}
UP_BLOCKS = {
    "UpBlock2D": Level(False, "conv"),
    "AttnUpBlock2D": Level(True, None),
    "ResnetUpsampleBlock2D": Level(False, "resnet"),
}
RESAMPLING = ("conv", "resnet")


class UNet(nn.Module):
    """Maps images x [B, H, W, C] at times t [B] to a prediction [B, H, W, outputs * C].

    Attributes:
        base_channels: channels at full resolution.
        channel_mults: channels of each level over `base_channels`; each level after the first has half the resolution.
        res_blocks: residual blocks of a level on the way down; the way up has one more.
        attention_resolutions: heights of the feature maps that get self-attention; the middle has it too.
        heads: attention heads; must divide the channels of each level with attention.
        dropout: dropout rate in the residual blocks.
        scale_shift: Improved-DDPM's scale-shift norm instead of DDPM's addition of the time embedding.
        time_scale: the embedding sees `time_scale * t`; 1000 gives DDPM's time steps.
        dtype: dtype of the activations; parameters, time embedding, statistics of norms, softmax and output are float32.
        outputs: output channels over predicted channels; 2 if the variance is learnt as well.
        remat: the backward pass computes the inside of each block again instead of keeping it.
        down_block_types: names in DOWN_BLOCKS, from full resolution down; they replace `attention_resolutions` on the way down.
        up_block_types: names in UP_BLOCKS, from the lowest resolution up, for the way up.
        downsample_type: "conv", a strided convolution, or "resnet", a residual block with a mean of 2x2 pixels.
        upsample_type: "conv", nearest-neighbour upsampling and a convolution, or "resnet", the former in a residual block.
        downsample_padding: of the strided convolution: 1 on all sides, 0 below and on the right (DDPM).
        attention_head_dim: channels of a head; 0: there are `heads` heads.
        add_attention: the middle has self-attention.
        norm_num_groups: groups of the norms; 0: 32, or fewer in narrow layers.
        attn_norm_num_groups: groups of the norm in the middle's attention; 0: as the others, -1: it has no norm.
        norm_eps: epsilon of the norms.
        flip_sin_to_cos: cosines come first in the time embedding; see `layers.sinusoidal_embedding`.
        freq_shift: of its frequencies.
        center_input_sample: the network sees 2 x - 1.

    Raises:
        InvalidArgument: there is no level, H or W is not divisible by 2^(levels - 1), no level has a height in
            `attention_resolutions`, there are more or fewer block types than levels, or heads or groups do not divide the
            channels of a layer.
        given: number of the last input channels that are given to the network, and not predicted.
    """

    base_channels: int = 128
    channel_mults: Sequence[float] = (1, 2, 2, 2)
    res_blocks: int = 2
    attention_resolutions: Sequence[int] = (16,)
    heads: int = 4
    dropout: float = 0.0
    scale_shift: bool = False
    time_scale: float = 1000.0
    dtype: jnp.dtype = jnp.float32
    outputs: int = 1
    remat: bool = False
    down_block_types: Sequence[str] = ()
    up_block_types: Sequence[str] = ()
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    downsample_padding: int = 1
    attention_head_dim: int = 0
    add_attention: bool = True
    norm_num_groups: int = 0
    attn_norm_num_groups: int = 0
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    center_input_sample: bool = False
    given: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, train: bool = False) -> jax.Array:
        self._check(x.shape[1], x.shape[2])
        embedding, norms = self._embed(t), Norms(self.norm_num_groups, self.norm_eps)
        last = len(self.channel_mults) - 1

        def res_block(h, features, name, resample=keep):
            kind = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock
            block = kind(features, self.dropout, self.scale_shift, self.dtype, norms, resample, name=name)
            return block(h, embedding, train)

        def block(h, features, level, name):
            h = res_block(h, features, name)
            return self._attend(h, norms, f"{name}_attention") if level.attention else h

        h = conv3x3(self.base_channels, self.dtype, name="conv_in")(2.0 * x - 1.0 if self.center_input_sample else x)
        skips = [h]
        for i, level in enumerate(self.down_levels(x.shape[1])):
            for j in range(self.res_blocks):
                h = block(h, self.channels(i), level, f"down{i}_{j}")
                skips.append(h)
            if i < last and level.resample == "resnet":
                skips.append(h := res_block(h, h.shape[-1], f"down{i}_half", halve))
            elif i < last:
                skips.append(h := downsample(h, self.dtype, self.downsample_padding, f"down{i}_half"))

        h = res_block(h, self.channels(last), "middle_0")
        if self.add_attention:
            h = self._attend(h, self._middle_norms(), "middle_attention")
        h = res_block(h, self.channels(last), "middle_1")

        for i, level in reversed(list(enumerate(self.up_levels(x.shape[1])))):
            for j in range(self.res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(h, self.channels(i), level, f"up{i}_{j}")
            if i and level.resample == "resnet":
                h = res_block(h, h.shape[-1], f"up{i}_double", double)
            elif i:
                h = upsample(h, self.dtype, f"up{i}_double")

        h = nn.silu(group_norm(h, norms, jnp.float32, "norm_out"))
        return conv3x3(self.outputs * (x.shape[-1] - self.given), jnp.float32, zero=True, name="conv_out")(h)

    def channels(self, level: int) -> int:
        """Returns the channels of a level, counted from full resolution."""
        return round(self.channel_mults[level] * self.base_channels)

    def num_heads(self, channels: int) -> int:
        """Returns the attention heads of a layer with so many channels."""
        return channels // self.attention_head_dim if self.attention_head_dim else self.heads

    def down_levels(self, height: int) -> list[Level]:
        """Returns the levels of the way down for images of this height, from full resolution."""
        return self._levels(height, self.down_block_types, DOWN_BLOCKS, self.downsample_type)

    def up_levels(self, height: int) -> list[Level]:
        """Returns the levels of the way up, also from full resolution."""
        return self._levels(height, self.up_block_types[::-1], UP_BLOCKS, self.upsample_type)

    def _levels(self, height, names, blocks, resample):
        if not names:
            heights = [height // 2**level for level in range(len(self.channel_mults))]
            return [Level(one in self.attention_resolutions, resample) for one in heights]
        return [blocks[name]._replace(resample=blocks[name].resample or resample) for name in names]

    def _middle_norms(self):
        if self.attn_norm_num_groups < 0:
            return None
        return Norms(self.attn_norm_num_groups or self.norm_num_groups, self.norm_eps)

    def _check(self, height, width):
        mults = tuple(self.channel_mults)
        if not mults:
            raise InvalidArgument("channel_mults=() has no level: set one multiple for each level, such as (1, 2, 2)")
        for key in ("down_block_types", "up_block_types"):
            if (names := getattr(self, key)) and len(names) != len(mults):
                has = f"{key} has {len(names)} names for {len(mults)} levels"
                raise InvalidArgument(f"{has}, channel_mults={mults}: set as many")
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
        for level, (down, up) in enumerate(zip(self.down_levels(height), self.up_levels(height), strict=True)):
            middle = self.add_attention and level == len(mults) - 1  # has the last level's channels
            if middle or down.attention or up.attention:
                self._check_heads(level, self.channels(level))

    def _check_heads(self, level, channels):
        if channels % (self.attention_head_dim or self.heads):
            key = "attention_head_dim" if self.attention_head_dim else "heads"
            raise InvalidArgument(
                f"{key}={getattr(self, key)} does not divide the {channels} channels of level {level}, which has "
                "attention: set a divisor"
            )

    def _embed(self, t):
        width = 4 * self.base_channels
        embed = functools.partial(sinusoidal_embedding, flip_sin_to_cos=self.flip_sin_to_cos, freq_shift=self.freq_shift)
        h = embed(self.time_scale * t, self.base_channels)
        h = nn.silu(nn.Dense(width, name="time_0")(h))
        return nn.Dense(width, name="time_1")(h)

    def _attend(self, h, norms, name):
        kind = nn.remat(SelfAttention) if self.remat else SelfAttention
        return kind(self.num_heads(h.shape[-1]), self.dtype, norms, name=name)(h)
