"""Feature networks for the Frechet distance; each maps images [N, H, W, C] in [-1, 1] to features [N, F].

`digits_cnn` is trained here on clean digits at its first use, and cached. Its features hardly see noise: read its distance
beside `noise_energy`.
"""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax

from advdiff_jax import cache
from advdiff_jax.data import sources
from advdiff_jax.errors import InvalidArgument

log = logging.getLogger(__name__)

Features = Callable[[np.ndarray], np.ndarray]


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


def digits_cnn(cache_dir: str = "") -> Features:
    """Builds the features of a classifier of clean digits, images [N, 8, 8, 1] -> [N, 64].

    Args:
        cache_dir: folder of its parameters; empty: `advdiff_jax.cache`. An unusable cache costs three seconds of training
            and a warning.

    The returned function raises InvalidArgument for images of another shape.
    """
    images, labels = sources.digits().train, sources.digit_labels()
    # The parameters depend on the images and on this file, so the name does.
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + pathlib.Path(__file__).read_bytes()).hexdigest()
    path = pathlib.Path(cache_dir or cache.directory()) / f"digits_cnn-{digest[:12]}.msgpack"
    network = DigitsCNN()
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), images[:1]))
    try:
        params = flax.serialization.from_bytes(like, path.read_bytes())
    except (OSError, ValueError):
        params = _train_digits_cnn(images, labels)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(flax.serialization.to_bytes(params))
            partial.replace(path)  # whole or not at all: several runs may share the cache
        except OSError as error:
            log.warning("feature network not cached: %s", error)
    apply = jax.jit(lambda x: network.apply(params, x)[0])

    def features(x):
        if x.shape[1:] != images.shape[1:]:
            raise InvalidArgument(f"digits_cnn takes images of shape {images.shape[1:]}, not {x.shape[1:]}")
        return np.asarray(apply(x))

    return features


FEATURES = {"digits_cnn": digits_cnn}
