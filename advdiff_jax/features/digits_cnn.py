"""The features of a classifier of clean digits, trained here at its first use, and cached.

They hardly see noise: read a distance in them beside `noise_energy`.
"""

import flax.linen as nn
import numpy as np
from flax.traverse_util import unflatten_dict

from advdiff_jax.data import sources
from advdiff_jax.features.classifier import SmallCNN, small_cnn
from advdiff_jax.features.network import Extracted, FeatureNetwork


def digits_cnn(cache_dir: str = "") -> FeatureNetwork:
    """Builds the features of a classifier of clean digits: images [N, 8, 8, 1] in [-1, 1] -> [N, 64], and 10 probabilities.

    Args:
        cache_dir: folder of its parameters; empty: `advdiff_jax.cache`. An unusable cache costs three seconds of training
            and a warning.
    """
    network = SmallCNN()
    trained = small_cnn(sources.digits().train, sources.digit_labels(), cache_dir=cache_dir)

    def apply(params, images):
        vectors, logits = network.apply(params, images)
        return Extracted(vectors, nn.softmax(logits))

    return FeatureNetwork(unflatten_dict(trained.params, sep="/"), apply, 64, np.dtype(np.float32))
