"""DINOv2's vision transformers ViT-S/14, B/14 and L/14 (Oquab et al. 2023), from a file that the user names.

The features are the class token after the last norm, as dgm-eval takes them (Stein et al. 2023). Images are prepared as there:
Pillow's bicubic resize to 224 x 224 pixels, which rounds to 8 bits, and ImageNet's mean and standard deviation.

A file in facebook's layout and one in transformers' give the same features. Both hold the positions of 37 x 37 patches, which
are interpolated to 16 x 16 as facebook's code does. transformers' own code reads them up to a tenth of a patch elsewhere.
"""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features import weights
from advdiff_jax.features.network import Extracted, FeatureNetwork, imagenet_normalised, in_full_precision
from advdiff_jax.interop import tensor_files

log = logging.getLogger(__name__)

SIDE, PATCH = 224, 14
GRID = SIDE // PATCH
OFFSET = 0.1  # facebook's interpolate_offset: patches that are added to the side of the interpolated grid
HEAD, EPS = 64, 1e-6  # channels of an attention head; of the norms


class Size(NamedTuple):
    """A vision transformer: its name, and the number of its blocks."""

    name: str
    depth: int


SIZES = {384: Size("ViT-S/14", 12), 768: Size("ViT-B/14", 12), 1024: Size("ViT-L/14", 24)}  # by the number of features


class Layout(NamedTuple):
    """How a library names the tensors.

    Attributes:
        token, positions, patches, norm: names outside of the blocks.
        block: prefix of a block's names, with {} for its number.
        layers: our layer of a block -> its names: one, or three for q, k and v.
        scales: our layer scale -> its name.
        unused: a tensor of training alone.
    """

    token: str
    positions: str
    patches: str
    norm: str
    block: str
    layers: dict[str, tuple[str, ...]]
    scales: dict[str, str]
    unused: str


_SHARED = {"norm1": ("norm1",), "norm2": ("norm2",), "fc1": ("mlp.fc1",), "fc2": ("mlp.fc2",)}
FACEBOOK = Layout(
    token="cls_token",
    positions="pos_embed",
    patches="patch_embed.proj",
    norm="norm",
    block="blocks.{}.",
    layers=_SHARED | {"qkv": ("attn.qkv",), "proj": ("attn.proj",)},
    scales={"scale1": "ls1.gamma", "scale2": "ls2.gamma"},
    unused="mask_token",
)
TRANSFORMERS = Layout(
    token="embeddings.cls_token",
    positions="embeddings.position_embeddings",
    patches="embeddings.patch_embeddings.projection",
    norm="layernorm",
    block="encoder.layer.{}.",
    layers=_SHARED
    | {
        "qkv": tuple(f"attention.attention.{one}" for one in ("query", "key", "value")),
        "proj": ("attention.output.dense",),
    },
    scales={"scale1": "layer_scale1.lambda1", "scale2": "layer_scale2.lambda1"},
    unused="embeddings.mask_token",
)


class Block(nn.Module):
    """Attention and a hidden layer of four times the width, each normalised first, scaled by channel, and added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def scaled(name, y):
            return y * self.param(name, nn.initializers.ones, (width,))

        width = x.shape[-1]
        heads = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(EPS, name="norm1")(x))
        q, k, v = jnp.moveaxis(heads.reshape(*x.shape[:2], 3, -1, HEAD), 2, 0)
        attended = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + scaled("scale1", nn.Dense(width, name="proj")(attended))
        hidden = nn.gelu(nn.Dense(4 * width, name="fc1")(nn.LayerNorm(EPS, name="norm2")(x)), approximate=False)
        return x + scaled("scale2", nn.Dense(width, name="fc2")(hidden))


def _block_shapes(width):
    params = jax.eval_shape(Block().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, width), jnp.float32))
    return params["params"]


def shapes(layout: Layout, width: int, grid: int = 37) -> dict[str, tuple[int, ...]]:
    """Returns the tensors that a file holds, name -> shape, as torch has them.

    Args:
        layout: the names.
        width: a key of `SIZES`.
        grid: patches on a side of the images that the file's positions are for.
    """
    found = {
        layout.token: (1, 1, width),
        layout.positions: (1, grid * grid + 1, width),
        f"{layout.patches}.weight": (width, 3, PATCH, PATCH),
        f"{layout.patches}.bias": (width,),
        f"{layout.norm}.weight": (width,),
        f"{layout.norm}.bias": (width,),
    }
    ours = _block_shapes(width)
    for number in range(SIZES[width].depth):
        prefix = layout.block.format(number)
        found |= {f"{prefix}{name}": (width,) for name in layout.scales.values()}
        for layer, names in layout.layers.items():
            outputs = ours[layer]["bias"].shape[0] // len(names)
            inputs = [leaf.shape[0] for leaf in [ours[layer].get("kernel")] if leaf is not None]
            found |= {f"{prefix}{name}.weight": (outputs, *inputs) for name in names}
            found |= {f"{prefix}{name}.bias": (outputs,) for name in names}
    return found


def from_tensors(tensors: Mapping[str, np.ndarray]) -> FeatureNetwork:
    """Builds the network from a file's tensors; raises InvalidArgument that names the first one that does not fit."""
    layout = next((one for one in (FACEBOOK, TRANSFORMERS) if one.token in tensors), FACEBOOK)
    width = tensors[layout.token].shape[-1] if layout.token in tensors else min(SIZES)
    if width not in SIZES:
        raise InvalidArgument(
            f"these are not weights of DINOv2's ViT-S, B or L: {layout.token} has {width} channels, not one of {[*SIZES]}"
        )
    size, count = SIZES[width], tensors.get(layout.positions, np.zeros((1, 1))).shape[1]
    grid = math.isqrt(max(count - 1, 1))
    weights.check_fits(f"DINOv2's {size.name}", tensors, shapes(layout, width, grid), unused=f"^{layout.unused}$")

    blocks = [_block_params(tensors, layout, number) for number in range(size.depth)]
    params = {
        "token": tensors[layout.token],
        "positions": interpolated(tensors[layout.positions], GRID),
        "patches": _layer(tensors, (layout.patches,)),
        "norm": _layer(tensors, (layout.norm,)),
        "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
    }
    log.info("DINOv2: %s, %d features", size.name, width)
    return FeatureNetwork(params, in_full_precision(_apply), width)


def _layer(tensors, names):
    weight, bias = (np.concatenate([tensors[f"{name}.{leaf}"] for name in names]) for leaf in ("weight", "bias"))
    if weight.ndim == 1:
        return {"scale": weight, "bias": bias}
    return {"kernel": weight.transpose(*range(2, weight.ndim), 1, 0), "bias": bias}


def _block_params(tensors, layout, number):
    prefix = layout.block.format(number)
    layers = {layer: _layer(tensors, [f"{prefix}{name}" for name in names]) for layer, names in layout.layers.items()}
    return layers | {scale: tensors[f"{prefix}{name}"] for scale, name in layout.scales.items()}


def _apply(params, images):
    x = imagenet_normalised(resized(images.astype(jnp.float32), SIDE) / 255.0)
    width = params["token"].shape[-1]
    patches = nn.Conv(width, (PATCH, PATCH), (PATCH, PATCH), "VALID").apply({"params": params["patches"]}, x)
    token = jnp.broadcast_to(params["token"], (len(x), 1, width))
    x = jnp.concatenate([token, patches.reshape(len(x), -1, width)], axis=1) + params["positions"]
    x, _ = jax.lax.scan(lambda x, block: (Block().apply({"params": block}, x), None), x, params["blocks"])
    return Extracted(nn.LayerNorm(EPS).apply({"params": params["norm"]}, x[:, 0]))


def dinov2(path: str, sha256: str = "", cache_dir: str = "") -> FeatureNetwork:
    """Builds DINOv2's network, of the size that the file holds: features [N, 384], [N, 768] or [N, 1024].

    Args:
        path: of the weights, or a URL, as `weights.locate` takes it.
        sha256: of the file.
        cache_dir: folder of a downloaded file; empty: `advdiff_jax.cache`.

    Raises:
        InvalidArgument: there is no such file, or it holds other weights.
    """
    return from_tensors(tensor_files.read(weights.locate(path, sha256, cache_dir)))


def resized(images: jax.Array, side: int) -> jax.Array:
    """Resizes grey levels [B, H, W, 1 or 3] to [B, side, side, 3] as Pillow's bicubic filter does, rows first, rounded twice.

    Pillow took rows first up to version 12. Version 13 takes columns first where an image is taller than wide and shrinks.
    """
    batch, height, _, channels = images.shape
    for shape in ((batch, height, side, channels), (batch, side, side, channels)):
        images = jnp.clip(jnp.floor(jax.image.resize(images, shape, "cubic") + 0.5), 0.0, 255.0)
    return jnp.broadcast_to(images, (batch, side, side, 3))


def interpolated(positions: np.ndarray, grid: int) -> np.ndarray:
    """Interpolates the embeddings of positions to another number of patches, as facebook's code does.

    Args:
        positions: [1, 1 + n n, D]; the first is the class token's.
        grid: patches on a side.

    Returns:
        [1, 1 + grid grid, D]: bicubic with a = -0.75 and without antialiasing, as torch's `interpolate`; patch i is read at
        (i + 0.5) n / (grid + 0.1) - 0.5.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if side == grid:
        return positions
    at = (np.arange(grid) + 0.5) * side / (grid + OFFSET) - 0.5
    taps = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    matrix = np.zeros((grid, side))
    np.add.at(matrix, (np.arange(grid)[:, None], taps.clip(0, side - 1)), _cubic(np.abs(at[:, None] - taps)))
    table = positions[0, 1:].reshape(side, side, -1).astype(np.float64)
    patches = np.einsum("ia,jb,abd->ijd", matrix, matrix, table, optimize=True).reshape(grid * grid, -1)
    return np.concatenate([positions[:, :1], patches[None].astype(np.float32)], axis=1)


def _cubic(x, a=-0.75):
    """Keys' kernel at distances 0 to 2."""
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return np.where(x <= 1.0, near, far)
