"""What a feature network is, and how its features are read off many images."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.data.pixels import Examples, as_stored, to_float

BATCH = 128  # images that a network sees at once


class Extracted(NamedTuple):
    """What a network says of images.

    Attributes:
        vectors: features, [N, F] float32.
        probabilities: of classes, [N, K]; None where the network is no classifier.
    """

    vectors: Any
    probabilities: Any = None


class FeatureNetwork(NamedTuple):
    """A network from images to features.

    Attributes:
        params: its parameters.
        apply: (params, images [B, H, W, C] of `dtype`) -> `Extracted`; pure. Images have 1 or 3 channels.
        dimension: F.
        dtype: of the images: uint8 as files are, or float32 in [-1, 1].
    """

    params: Any
    apply: Callable[[Any, jax.Array], Extracted]
    dimension: int
    dtype: np.dtype = np.dtype(np.uint8)


def batches(
    network: FeatureNetwork, images: Examples, batch_size: int = BATCH, apply: Callable | None = None
) -> Iterator[Extracted]:
    """Reads the features of a data set, batch by batch.

    Args:
        network: a network; where it takes uint8, floats in [-1, 1] are clipped and rounded as a file would store them.
        images: a data set [N, H, W, C] of uint8, or of floats in [-1, 1].
        batch_size: images that are in memory at once.
        apply: (params, images [batch_size, ...]) -> `Extracted`; None: the network's own, compiled for one device.

    Yields:
        `Extracted` of NumPy arrays.
    """
    apply = apply or jax.jit(network.apply)
    for start in range(0, len(images), batch_size):
        indices = np.arange(start, min(start + batch_size, len(images)))
        batch = as_stored(to_float(np.asarray(images[indices])), network.dtype)
        # Batches of one shape make one program: the last is filled up, and what was added is dropped.
        full = batch[np.resize(np.arange(len(batch)), batch_size)]
        count = len(batch)
        yield jax.tree.map(lambda x, count=count: np.asarray(x)[:count], apply(network.params, full))


def extract(network: FeatureNetwork, images: Examples, batch_size: int = BATCH, apply: Callable | None = None) -> Extracted:
    """Returns all of `batches` in one; takes the same arguments."""
    found = list(batches(network, images, min(batch_size, max(len(images), 1)) if apply is None else batch_size, apply))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def in_full_precision(apply: Callable[[Any, jax.Array], Extracted]) -> Callable[[Any, jax.Array], Extracted]:
    """Has `apply` multiply in float32 on every device, as published numbers do; accelerators round the factors otherwise."""

    @functools.wraps(apply)
    def precise(params, images):
        with jax.default_matmul_precision("float32"):
            return apply(params, images)

    return precise


def to_colour(images: jax.Array) -> jax.Array:
    """Returns uint8 images [B, H, W, 1 or 3] as floats in [0, 1] with three channels; grey is repeated."""
    return jnp.broadcast_to(images.astype(jnp.float32) / 255.0, (*images.shape[:3], 3))


def at_least(images: jax.Array, side: int) -> jax.Array:
    """Enlarges images [B, H, W, C] bilinearly until their shorter side is `side` pixels; larger images stay."""
    height, width = images.shape[1:3]
    factor = side / min(height, width)
    if factor <= 1.0:
        return images
    return jax.image.resize(images, (len(images), round(height * factor), round(width * factor), images.shape[3]), "bilinear")


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet_normalised(images: jax.Array) -> jax.Array:
    """Scales images in [0, 1] to the mean 0 and standard deviation 1 of ImageNet, as torchvision's networks take them."""
    return (images - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
