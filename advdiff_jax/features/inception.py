"""FID's own network: Inception-v3 of the TensorFlow graph of 2015-12-05 (Heusel et al. 2017), from a file that the user names.

The file is pytorch-fid's and torch-fidelity's port, pt_inception-2015-12-05. Where that graph differs from torchvision's
Inception-v3, the graph holds: average pools leave the padding out, the last block has a max pool, there are 1008 logits, and
images are resized as TensorFlow 1 did, without antialiasing and from the corner of a pixel. Nothing is rounded after resizing.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from advdiff_jax.features import weights
from advdiff_jax.features.network import Extracted, FeatureNetwork, in_full_precision
from advdiff_jax.interop import tensor_files

SIDE, DIMENSION, CLASSES = 299, 2048, 1008
EPS = 1e-3  # of the batch normalisation
_NORM = ("weight", "bias", "running_mean", "running_var")


class Layer(NamedTuple):
    """A convolution with batch normalisation, which is folded into it, and relu; its name is that of the file."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def _apply(x, *layers):
    for layer in layers:
        conv = nn.Conv(
            layer.width, layer.kernel, layer.stride, layer.padding, kernel_init=nn.initializers.zeros, name=layer.name
        )
        x = nn.relu(conv(x))
    return x


def _halving(name, width):
    return Layer(name, width, (3, 3), 2, "VALID")


def _average(x):
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35 positions: 1x1, 5x5, twice 3x3, and an average pool."""

    pool_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        five = _apply(x, Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5)))
        dbl = "branch3x3dbl"
        three = _apply(x, Layer(f"{dbl}_1", 64), Layer(f"{dbl}_2", 96, (3, 3)), Layer(f"{dbl}_3", 96, (3, 3)))
        pool = _apply(_average(x), Layer("branch_pool", self.pool_width))
        return jnp.concatenate([_apply(x, Layer("branch1x1", 64)), five, three, pool], axis=-1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17 positions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dbl = "branch3x3dbl"
        three = _apply(x, Layer(f"{dbl}_1", 64), Layer(f"{dbl}_2", 96, (3, 3)), _halving(f"{dbl}_3", 96))
        return jnp.concatenate([_apply(x, _halving("branch3x3", 384)), three, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class BlockC(nn.Module):
    """17 x 17 positions: 1x1, 7x7 and twice 7x7 as rows and columns, and an average pool."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w, row, column = self.width, (1, 7), (7, 1)
        seven = _apply(x, Layer("branch7x7_1", w), Layer("branch7x7_2", w, row), Layer("branch7x7_3", 192, column))
        widths_kernels = zip((w, w, w, w, 192), ((1, 1), column, row, column, row), strict=True)
        twice = _apply(x, *(Layer(f"branch7x7dbl_{i}", *one) for i, one in enumerate(widths_kernels, 1)))
        pool = _apply(_average(x), Layer("branch_pool", 192))
        return jnp.concatenate([_apply(x, Layer("branch1x1", 192)), seven, twice, pool], axis=-1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8 positions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _apply(x, Layer("branch3x3_1", 192), _halving("branch3x3_2", 320))
        name = "branch7x7x3"
        rows = Layer(f"{name}_1", 192), Layer(f"{name}_2", 192, (1, 7)), Layer(f"{name}_3", 192, (7, 1))
        seven = _apply(x, *rows, _halving(f"{name}_4", 192))
        return jnp.concatenate([three, seven, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class BlockE(nn.Module):
    """8 x 8 positions: 1x1, 3x3 and twice 3x3, each split into rows and columns at its end, and a pool."""

    has_max_pool: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def split(x, name):
            return [_apply(x, Layer(f"{name}a", 384, (1, 3))), _apply(x, Layer(f"{name}b", 384, (3, 1)))]

        three = split(_apply(x, Layer("branch3x3_1", 384)), "branch3x3_2")
        twice = split(_apply(x, Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3))), "branch3x3dbl_3")
        pooled = nn.max_pool(x, (3, 3), padding="SAME") if self.has_max_pool else _average(x)
        pool = _apply(pooled, Layer("branch_pool", 192))
        return jnp.concatenate([_apply(x, Layer("branch1x1", 320)), *three, *twice, pool], axis=-1)


class Inception(nn.Module):
    """Images [B, 299, 299, 3] in [-1, 1) -> the mean over positions of the last activation, [B, 2048]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stem = _halving("Conv2d_1a_3x3", 32), Layer("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
        x = nn.max_pool(_apply(x, *stem, Layer("Conv2d_2b_3x3", 64, (3, 3))), (3, 3), (2, 2))
        x = _apply(x, Layer("Conv2d_3b_1x1", 80), Layer("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
        x = nn.max_pool(x, (3, 3), (2, 2))
        for name, width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(width, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(width, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(False, name="Mixed_7b")(x)
        return jnp.mean(BlockE(True, name="Mixed_7c")(x), axis=(1, 2))


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the tensors that a file holds, name -> shape, as torch has them."""
    kernels = {path[:-1]: leaf.shape for path, leaf in _leaves() if path[-1] == "kernel"}
    found = {}
    for path, (height, width, inputs, outputs) in kernels.items():
        name = ".".join(path)
        found[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        found |= {f"{name}.bn.{part}": (outputs,) for part in _NORM}
    return found | {"fc.weight": (CLASSES, DIMENSION), "fc.bias": (CLASSES,)}


@functools.cache
def _leaves():
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    params = jax.eval_shape(Inception().init, jax.random.key(0), images)["params"]
    return tuple(flatten_dict(params).items())


def from_tensors(tensors: Mapping[str, np.ndarray]) -> FeatureNetwork:
    """Builds the network from a file's tensors; raises InvalidArgument that names the first one that does not fit."""
    weights.check_fits("FID's Inception", tensors, shapes(), unused=r"\.num_batches_tracked$")
    found = {}
    for path in {path[:-1] for path, _ in _leaves()}:
        kernel = np.asarray(tensors[".".join((*path, "conv", "weight"))], np.float64)
        scale, bias, mean, variance = (np.asarray(tensors[".".join((*path, "bn", part))], np.float64) for part in _NORM)
        factor = scale / np.sqrt(variance + EPS)
        found[(*path, "kernel")] = (kernel.transpose(2, 3, 1, 0) * factor).astype(np.float32)
        found[(*path, "bias")] = (bias - mean * factor).astype(np.float32)
    params = {"params": unflatten_dict(found), "classes": np.ascontiguousarray(tensors["fc.weight"].T)}

    def apply(params, images):
        x = resized(jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3)), SIDE)
        vectors = Inception().apply({"params": params["params"]}, (x - 128.0) / 128.0)
        # The inception score is defined without the bias of the logits, in its authors' code and in all that followed.
        return Extracted(vectors, nn.softmax(vectors @ params["classes"]))

    return FeatureNetwork(params, in_full_precision(apply), DIMENSION)


def inception(path: str, sha256: str = "", cache_dir: str = "") -> FeatureNetwork:
    """Builds FID's network: the features [N, 2048] of its last pool, and the probabilities of 1008 classes.

    Args:
        path: of the weights, or a URL, as `weights.locate` takes it.
        sha256: of the file.
        cache_dir: folder of a downloaded file; empty: `advdiff_jax.cache`.

    Raises:
        InvalidArgument: there is no such file, or it holds other weights.
    """
    return from_tensors(tensor_files.read(weights.locate(path, sha256, cache_dir)))


def resized(images: jax.Array, side: int) -> jax.Array:
    """Resizes [B, H, W, C] to [B, side, side, C] as TensorFlow 1's `resize_bilinear` does: pixel i is read at i H / side."""

    def neighbours(size):
        at = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = at.astype(np.int32)
        return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)

    low, high, share = neighbours(images.shape[2])
    left, right = images[:, :, low], images[:, :, high]
    x = left + (right - left) * share[:, None]
    low, high, share = neighbours(images.shape[1])
    return x[:, low] + (x[:, high] - x[:, low]) * share[:, None, None]
