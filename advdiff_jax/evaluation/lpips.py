"""LPIPS, the perceptual distance of Zhang et al. 2018 (arXiv 1801.03924), version 0.1 on AlexNet.

    d(a, b) = sum over layers of  mean over positions of  w . (f(a) / ||f(a)|| - f(b) / ||f(b)||)^2

f are AlexNet's five activations, and w >= 0 are weights that people's judgements of similarity have set.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features import lpips_weights
from advdiff_jax.features.alexnet import AlexNet
from advdiff_jax.features.network import imagenet_normalised

SMALLEST = 32  # pixels: AlexNet halves images below 31 to nothing
BATCH = 64
EPS = 1e-10  # of LPIPS


def lpips(cache_dir: str = "") -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Builds the distance of pairs of images: [N, H, W, C] and the same, in [-1, 1], C = 1 (repeated) or 3 -> [N].

    Args:
        cache_dir: folder of the weights; see `lpips_weights.read`.

    The returned function raises InvalidArgument if a side has fewer than 32 pixels.
    """
    params = lpips_weights.read("alexnet", cache_dir)
    heads = [params[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(5)]

    def directions(images):
        colour = jnp.broadcast_to(0.5 * images + 0.5, (*images.shape[:3], 3))
        activations = AlexNet().apply({"params": params["AlexNet_0"]}, imagenet_normalised(colour))
        return [x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + EPS) for x in activations]

    @jax.jit
    def distance(a, b):
        layers = zip(directions(a), directions(b), heads, strict=True)
        return sum(jnp.mean((f - g) ** 2 @ weights, axis=(1, 2)) for f, g, weights in layers)

    def in_batches(a, b):
        if min(a.shape[1:3]) < SMALLEST:
            raise InvalidArgument(f"LPIPS needs {SMALLEST} x {SMALLEST} pixels or more, not {a.shape[1]} x {a.shape[2]}")
        return np.concatenate([distance(a[i : i + BATCH], b[i : i + BATCH]) for i in range(0, len(a), BATCH)])

    return in_batches
