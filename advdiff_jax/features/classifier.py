"""A small classifier of images, trained here on labelled examples at its first use, and cached."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from advdiff_jax import cache
from advdiff_jax.data import fingerprint
from advdiff_jax.data.pixels import Examples, to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.convolution import Conv


class SmallCNN(nn.Module):
    """Two convolutions, a hidden layer of 64 units (the features), and the logits of `classes` classes."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = nn.relu(Conv(32, (3, 3))(x))
        h = nn.relu(Conv(64, (3, 3), (2, 2))(h))
        features = nn.relu(nn.Dense(64)(h.reshape(h.shape[0], -1)))
        return features, nn.Dense(self.classes)(features)


class Classifier(NamedTuple):
    """A classifier of images.

    Attributes:
        params: flat, name -> array.
        classify: images [B, H, W, C] in [-1, 1] -> logits [B, K]; pure.
        classes: K.
    """

    params: dict[str, Any]
    classify: Callable[[jax.Array], jax.Array]
    classes: int


def train(images: Examples, labels: np.ndarray, classes: int, steps: int = 600, batch_size: int = 128) -> Any:
    """Trains `SmallCNN` by cross-entropy with Adam; returns its parameters.

    Args:
        images: a data set [N, H, W, C] of uint8, or of floats in [-1, 1].
        labels: in [0, classes), [N].
        classes: their number.
        steps: of the optimiser.
        batch_size: of a step, drawn with replacement.
    """
    network, optimizer = SmallCNN(classes), optax.adam(1e-3)
    params = network.init(jax.random.key(0), to_float(images[np.arange(1)]))
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
        params, opt_state = step(params, opt_state, to_float(images[chosen]), labels[chosen])
    return params


def digest(images: Examples, labels: np.ndarray, steps: int) -> str:
    """Names what trained parameters depend on: the images, the labels, the steps and this file."""
    known = json.dumps([fingerprint.of(images), fingerprint.of_array(labels), steps], sort_keys=True).encode()
    return cache.digest(hashlib.sha256(known).digest() + pathlib.Path(__file__).read_bytes())


def small_cnn(images: Examples, labels: np.ndarray, steps: int = 600, cache_dir: str = "") -> Classifier:
    """Trains a classifier, or reads it from the cache; arguments as for `train`, and the folder of `cache.tensors`."""
    classes = int(labels.max()) + 1
    flat = cache.tensors(
        cache_dir,
        f"classifier-{digest(images, labels, steps)}.safetensors",
        lambda: flatten_dict(train(images, labels, classes, steps), sep="/"),
    )
    return _classifier(flat, classes)


def read(path: str, shape: tuple[int, ...]) -> Classifier:
    """Reads a classifier that `write` wrote, for images of `shape`.

    Raises:
        InvalidArgument: the file cannot be read, holds another network, or is of images of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        flat = load_file(pathlib.Path(path).expanduser())
    except (OSError, SafetensorError) as error:
        raise InvalidArgument(
            f"file={path!r} cannot be read ({error}): set a classifier.safetensors, or leave it out"
        ) from error
    bias = flat.get("params/Dense_1/bias")
    classes = 1 if bias is None else len(bias)
    wanted = jax.eval_shape(SmallCNN(classes).init, jax.random.key(0), jnp.zeros((1, *shape)))
    needed = {name: leaf.shape for name, leaf in flatten_dict(wanted, sep="/").items()}
    if differing := sorted(name for name in needed | flat if np.shape(flat.get(name)) != needed.get(name)):
        name = differing[0]
        has = f"{name} of shape {list(flat[name].shape)}" if name in flat else f"no {name}"
        raise InvalidArgument(
            f"file={path!r} has {has}, and images of shape {list(shape)} need {list(needed.get(name, ()))}: set a classifier "
            "of such images, or leave it out to train one"
        )
    return _classifier(flat, classes)


def write(path: pathlib.Path, classifier: Classifier) -> None:
    """Writes the parameters for `read`."""
    from safetensors.numpy import save

    path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in classifier.params.items()}))


def _classifier(flat, classes):
    network, params = SmallCNN(classes), unflatten_dict(flat, sep="/")
    return Classifier(flat, lambda images: network.apply(params, images)[1], classes)
