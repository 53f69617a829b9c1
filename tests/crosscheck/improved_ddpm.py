"""Improved-DDPM's U-Net in torch, written for this check; its state dict has the names of the original's."""

import math

import torch
from torch import nn
from torch.nn import functional


def embed(times, channels):
    frequencies = torch.exp(-math.log(10_000) * torch.arange(channels // 2) / (channels // 2))
    angles = times[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Block(nn.Module):
    """Residual block; `resample` is None, "down" or "up" (guided-diffusion's resblock_updown)."""

    def __init__(self, inputs, channels, width, scale_shift, resample=None):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, channels * (2 if scale_shift else 1)))
        out = nn.Conv2d(channels, channels, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Dropout(0.0), out)
        self.skip_connection = nn.Identity() if inputs == channels else nn.Conv2d(inputs, channels, 1)

    def resized(self, x):
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x

    def forward(self, x, embedding):
        h = self.in_layers[2](self.resized(self.in_layers[1](self.in_layers[0](x))))
        x = self.resized(x)
        told = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            return self.skip_connection(x) + self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(x) + self.out_layers(h + told)


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(32, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x, embedding):
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1)).unbind(2)
        weights = torch.softmax(torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(q.shape[2]), dim=-1)
        mixed = torch.einsum("bhts,bhcs->bhct", weights, v).flatten(1, 2)
        return (flat + self.proj_out(mixed)).view_as(x)


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, embedding):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, embedding):
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))


class Group(nn.ModuleList):
    def forward(self, x, embedding):
        for layer in self:
            x = layer(x, embedding) if not isinstance(layer, nn.Conv2d) else layer(x)
        return x


class UNet(nn.Module):
    """(x [B, C, H, W], indices [B]) -> [B, 2 C, H, W], the second half for the variance; attention at rates of downsampling."""

    def __init__(self, inputs, channels, mults, blocks, rates, heads, scale_shift, updown):
        super().__init__()
        self.channels, width = channels, 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

        def resampling(at, way):
            return Block(at, at, width, scale_shift, way) if updown else {"down": Down, "up": Up}[way](at)

        self.input_blocks = nn.ModuleList([Group([nn.Conv2d(inputs, channels, 3, padding=1)])])
        skips, at = [channels], channels
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                layers = [Block(at, mult * channels, width, scale_shift)]
                at = mult * channels
                layers += [Attention(at, heads)] if 2**level in rates else []
                self.input_blocks.append(Group(layers))
                skips.append(at)
            if level < len(mults) - 1:
                self.input_blocks.append(Group([resampling(at, "down")]))
                skips.append(at)
        ends = [Block(at, at, width, scale_shift) for _ in range(2)]
        self.middle_block = Group([ends[0], Attention(at, heads), ends[1]])
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for i in range(blocks + 1):
                layers = [Block(at + skips.pop(), mult * channels, width, scale_shift)]
                at = mult * channels
                layers += [Attention(at, heads)] if 2**level in rates else []
                layers += [resampling(at, "up")] if level and i == blocks else []
                self.output_blocks.append(Group(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, at), nn.SiLU(), nn.Conv2d(at, 2 * inputs, 3, padding=1))

    def forward(self, x, indices):
        embedding, states = self.time_embed(embed(indices, self.channels)), []
        for block in self.input_blocks:
            x = block(x, embedding)
            states.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, states.pop()], dim=1), embedding)
        return self.out(x)
