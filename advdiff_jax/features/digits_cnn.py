"""The features of a classifier of clean digits, trained here at its first use, and cached.

They hardly see noise: read a distance in them beside `noise_energy`.
"""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from advdiff_jax import cache
from advdiff_jax.data import sources
from advdiff_jax.features.network import Extracted, FeatureNetwork


class DigitsCNN(nn.Module):
    """Two convolutions, a hidden layer of 64 units (the features), and 10 logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = nn.relu(nn.Conv(32, (3, 3))(x))
        h = nn.relu(nn.Conv(64, (3, 3), (2, 2))(h))
        features = nn.relu(nn.Dense(64)(h.reshape(h.shape[0], -1)))
        return features, nn.Dense(10)(features)


def _train_digits_cnn(images: np.ndarray, labels: np.ndarray, steps: int = 600, batch_size: int = 128):
    network, optimizer = DigitsCNN(), optax.adam(1e-3)
    params = network.init(jax.random.key(0), images[:1])
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, x, y):
        def loss(params):
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x)[1], y))

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.integers(len(images), size=batch_size)
        params, opt_state = step(params, opt_state, images[chosen], labels[chosen])
    return params


def digits_cnn(cache_dir: str = "") -> FeatureNetwork:
    """Builds the features of a classifier of clean digits: images [N, 8, 8, 1] in [-1, 1] -> [N, 64], and 10 probabilities.

    Args:
        cache_dir: folder of its parameters; empty: `advdiff_jax.cache`. An unusable cache costs three seconds of training
            and a warning.
    """
    images, labels = sources.digits().train, sources.digit_labels()
    # The parameters depend on the images and on this file, so the name does.
    digest = cache.digest(images.tobytes() + labels.tobytes() + pathlib.Path(__file__).read_bytes())
    network = DigitsCNN()
    params = cache.tensors(
        cache_dir,
        f"digits_cnn-{digest}.safetensors",
        lambda: flatten_dict(_train_digits_cnn(images, labels), sep="/"),
    )

    def apply(params, images):
        vectors, logits = network.apply(params, images)
        return Extracted(vectors, nn.softmax(logits))

    return FeatureNetwork(unflatten_dict(params, sep="/"), apply, 64, np.dtype(np.float32))
