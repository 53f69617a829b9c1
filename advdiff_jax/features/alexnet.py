"""AlexNet's convolutions (Krizhevsky 2014, one tower, torchvision's layout) with ImageNet weights."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.features import lpips_weights
from advdiff_jax.features.network import Extracted, FeatureNetwork, at_least, imagenet_normalised, in_full_precision, to_colour

SIDE = 64  # smaller images are enlarged: at 32 pixels the last layer would see one position


class Layer(NamedTuple):
    """A convolution: channels, side of its kernel, stride, padding, and whether a max pooling comes before it."""

    width: int
    side: int
    stride: int
    padding: int
    is_pooled: bool


LAYERS = (
    Layer(64, 11, 4, 2, False),
    Layer(192, 5, 1, 2, True),
    Layer(384, 3, 1, 1, True),
    Layer(256, 3, 1, 1, False),
    Layer(256, 3, 1, 1, False),
)


class AlexNet(nn.Module):
    """Images [B, H, W, 3], normalised, at least 31 pixels -> the five activations after relu."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        found = []
        for layer in LAYERS:
            x = nn.max_pool(x, (3, 3), (2, 2)) if layer.is_pooled else x
            x = nn.relu(nn.Conv(layer.width, (layer.side, layer.side), (layer.stride, layer.stride), layer.padding)(x))
            found.append(x)
        return found


def alexnet(cache_dir: str = "") -> FeatureNetwork:
    """Builds AlexNet's features: the mean over positions of the last activation, [N, 256]."""
    params = {"params": lpips_weights.read("alexnet", cache_dir)["AlexNet_0"]}

    def apply(params, images):
        x = imagenet_normalised(at_least(to_colour(images), SIDE))
        return Extracted(jnp.mean(AlexNet().apply(params, x)[-1], axis=(1, 2)))

    return FeatureNetwork(params, in_full_precision(apply), 256)
