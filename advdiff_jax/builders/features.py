"""Config -> the network in whose features images are compared: the registry of feature networks."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.registry import as_user_error, lookup
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features.alexnet import alexnet
from advdiff_jax.features.digits_cnn import digits_cnn
from advdiff_jax.features.dinov2 import dinov2
from advdiff_jax.features.inception import inception
from advdiff_jax.features.network import FeatureNetwork, extract
from advdiff_jax.features.vgg16 import vgg16

FALLBACK = "vgg16"  # what stands in for FID's network where a config names that and no weights
FID_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"


class FeaturesSpec(NamedTuple):
    """What is known of a name of `config.evaluation.features`.

    Attributes:
        build: section `evaluation` of a config -> the network.
        dimension: number of features; None: the file of weights says it.
        shape: of the images that it takes; None: any images of 1 or 3 channels.
        reads: keys of the config that it reads and others may not.
        is_classifier: it has class probabilities, which the inception score needs.
    """

    build: Callable[[ml_collections.ConfigDict], FeatureNetwork]
    dimension: int | None
    shape: tuple[int, ...] | None = None
    reads: tuple[str, ...] = ()
    is_classifier: bool = False

    @property
    def needs_file(self) -> bool:
        """Whether the user names a file of weights."""
        return "evaluation.weights" in self.reads


_WEIGHTS = ("evaluation.weights", "evaluation.weights_sha256")

FEATURES = {
    "digits_cnn": FeaturesSpec(lambda c: digits_cnn(c.cache_dir), 64, shape=(8, 8, 1), is_classifier=True),
    "alexnet": FeaturesSpec(lambda c: alexnet(c.cache_dir), 256),
    "vgg16": FeaturesSpec(lambda c: vgg16(c.cache_dir), 512),
    "inception": FeaturesSpec(
        lambda c: inception(c.weights, c.weights_sha256, c.cache_dir), 2048, reads=_WEIGHTS, is_classifier=True
    ),
    "dinov2": FeaturesSpec(lambda c: dinov2(c.weights, c.weights_sha256, c.cache_dir), None, reads=_WEIGHTS),
}


def fall_back(config: ml_collections.ConfigDict, overrides: Iterable[str] = ()) -> str:
    """Sets `evaluation.features` to VGG16 where a config names FID's network and no weights, in place.

    A config's inception score is then left out, because VGG16's convolutions name no classes.

    Args:
        config: unlocked.
        overrides: keys that the user gave. What the user asked for stays, and is refused where it does not fit.

    Returns:
        a line that says so; "": nothing was changed.
    """
    c, said = config.evaluation, []
    if c.features == "inception" and not c.weights and "evaluation.features" not in overrides:
        c.features = FALLBACK
        said = [
            f"config.evaluation.weights names no file for FID's network, so features are those of {FALLBACK}: for FID set it "
            f"to {FID_WEIGHTS}"
        ]
    names_classes = c.features in FEATURES and FEATURES[c.features].is_classifier
    if "inception_score" in c.metrics and "evaluation.metrics" not in overrides and not names_classes:
        c.metrics = tuple(name for name in c.metrics if name != "inception_score")
        said.append(f"inception_score is left out: {c.features} names no classes")
    return "; ".join(said)


def build_features(config: ml_collections.ConfigDict) -> FeatureNetwork:
    """Builds the network that `config.evaluation.features` names; raises UserError where its weights cannot be read."""
    spec = lookup(FEATURES, config, "evaluation.features")
    with as_user_error("config.evaluation"):
        return spec.build(config.evaluation)


def build_vectors(config: ml_collections.ConfigDict) -> Callable[[Examples], np.ndarray]:
    """Builds images [N, H, W, C] -> features [N, F] of `build_features`, a batch at a time."""
    network = build_features(config)
    return lambda images: extract(network, images).vectors


def check_features(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> int:
    """Returns the number of features of the named network; a run calls it before it trains.

    Raises:
        InvalidArgument: the network does not take examples of this shape.
        UserError: its file of weights is missing, or holds others.
    """
    spec, c = lookup(FEATURES, config, "evaluation.features"), config.evaluation
    wanted = spec.shape
    if wanted and tuple(shape) != wanted:
        raise InvalidArgument(f"evaluation.features={config.evaluation.features} takes images of shape {wanted}, not {shape}")
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InvalidArgument(f"it compares images of 1 or 3 channels, and data.source={config.data.source} has {list(shape)}")
    if not spec.needs_file:
        return spec.dimension
    with as_user_error("config.evaluation"):
        return _read_dimension(c.features, c.weights, c.weights_sha256, c.cache_dir)


@functools.cache
def _read_dimension(name, weights, sha256, cache_dir):
    """Reads a whole file, once for all metrics that ask, and keeps the number alone."""
    section = ml_collections.ConfigDict({"weights": weights, "weights_sha256": sha256, "cache_dir": cache_dir})
    return FEATURES[name].build(section).dimension
