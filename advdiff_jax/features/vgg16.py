"""VGG16's convolutions (Simonyan & Zisserman 2015, torchvision's layout) with ImageNet weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from advdiff_jax.features import lpips_weights
from advdiff_jax.features.network import Extracted, FeatureNetwork, at_least, imagenet_normalised, in_full_precision, to_colour

SIDE = 32  # smaller images are enlarged: four halvings leave 2x2 positions
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Images [B, H, W, 3], normalised, at least 16 pixels -> the last activation of each resolution, after relu."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        found = []
        for level, widths in enumerate(WIDTHS):
            x = nn.max_pool(x, (2, 2), (2, 2)) if level else x
            for width in widths:
                x = nn.relu(nn.Conv(width, (3, 3), padding="VALID")(_bordered(x)))
            found.append(x)
        return found


def _bordered(x):
    # XLA's CPU back end convolves 40 times more slowly where the image is smaller than the kernel, as at the last level of
    # 32x32 images, and folds a border back into the convolution unless it is held apart.
    bordered = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jax.lax.optimization_barrier(bordered) if min(x.shape[1:3]) < 3 else bordered


def vgg16(cache_dir: str = "") -> FeatureNetwork:
    """Builds VGG16's features: the mean over positions of the last activation, [N, 512]."""
    params = {"params": lpips_weights.read("vgg16", cache_dir)["VGG16_0"]}

    def apply(params, images):
        x = imagenet_normalised(at_least(to_colour(images), SIDE))
        return Extracted(jnp.mean(VGG16().apply(params, x)[-1], axis=(1, 2)))

    return FeatureNetwork(params, in_full_precision(apply), 512)
