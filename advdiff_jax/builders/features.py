"""Config -> the network in whose features images are compared: the registry of feature networks."""

from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.registry import as_user_error, lookup
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features.alexnet import alexnet
from advdiff_jax.features.digits_cnn import digits_cnn
from advdiff_jax.features.network import FeatureNetwork, extract
from advdiff_jax.features.vgg16 import vgg16


class FeaturesSpec(NamedTuple):
    """What is known of a name of `config.evaluation.features`.

    Attributes:
        build: section `evaluation` of a config -> the network.
        dimension: number of features.
        shape: of the images that it takes; None: any images of 1 or 3 channels.
        reads: keys of the config that it reads and others may not.
    """

    build: Callable[[ml_collections.ConfigDict], FeatureNetwork]
    dimension: int
    shape: tuple[int, ...] | None = None
    reads: tuple[str, ...] = ()


FEATURES = {
    "digits_cnn": FeaturesSpec(lambda c: digits_cnn(c.cache_dir), 64, shape=(8, 8, 1)),
    "alexnet": FeaturesSpec(lambda c: alexnet(c.cache_dir), 256),
    "vgg16": FeaturesSpec(lambda c: vgg16(c.cache_dir), 512),
}


def build_features(config: ml_collections.ConfigDict) -> FeatureNetwork:
    """Builds the network that `config.evaluation.features` names; raises UserError where its weights cannot be read."""
    spec = lookup(FEATURES, config, "evaluation.features")
    with as_user_error("config.evaluation"):
        return spec.build(config.evaluation)


def build_vectors(config: ml_collections.ConfigDict) -> Callable[[Examples], np.ndarray]:
    """Builds images [N, H, W, C] -> features [N, F] of `build_features`, a batch at a time."""
    network = build_features(config)
    return lambda images: extract(network, images).vectors


def check_features(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> None:
    """Raises InvalidArgument if the named network does not take examples of this shape."""
    wanted = lookup(FEATURES, config, "evaluation.features").shape
    if wanted and tuple(shape) != wanted:
        raise InvalidArgument(f"evaluation.features={config.evaluation.features} takes images of shape {wanted}, not {shape}")
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InvalidArgument(f"it compares images of 1 or 3 channels, and data.source={config.data.source} has {list(shape)}")
