"""Parameters of `networks.unet.UNet` against the named tensors of another library: one table of names, used both ways.

Ours is a tree {block: {layer: {leaf: array}}}, channels last. Theirs is a flat dictionary as torch has it:

    ours              theirs
    kernel [h, w, I, O]   weight [O, I, h, w]    convolution
    kernel [I, O]         weight [O, I]          dense layer; [O, I, 1] and [O, I, 1, 1] where it is a convolution there
    scale [C]             weight [C]             norm

Our projection `qkv` holds (heads, 3, channels of a head) in this order, as Improved-DDPM's; diffusers has a tensor each for q,
k and v.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from advdiff_jax.networks.layers import Norms
from advdiff_jax.networks.unet import UNet

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Layout(NamedTuple):
    """How another library names the tensors of a U-Net.

    Attributes:
        blocks: our block -> its name there.
        res_block: our layer of a residual block -> its name within the block there.
        attention: our layer of an attention block -> its names there: one, or three for q, k and v.
        aliases: (name) -> another name under which older files have the tensor, or the same.
    """

    blocks: dict[str, str]
    res_block: dict[str, str]
    attention: dict[str, tuple[str, ...]]
    aliases: Callable[[str], str] = lambda name: name


class Entry(NamedTuple):
    """An array of ours and what it is there: `path` in our tree, `names` of one tensor, or of three for q, k and v."""

    path: tuple[str, ...]
    names: tuple[str, ...]


class Conversion(NamedTuple):
    """What became of a file of tensors.

    Attributes:
        params: our parameters; of arrays that are missing or misshapen, zeros.
        missing: names of tensors that the network needs and the file lacks.
        unused: names of tensors in the file that the network does not have.
        misshapen: "name [found], not [wanted]" of tensors with another shape, or with numbers that are not finite.
    """

    params: Any
    missing: list[str]
    unused: list[str]
    misshapen: list[str]


def entries(params: Mapping, layout: Layout) -> Iterator[Entry]:
    """Yields all arrays of our parameters (or of their shapes) in order, with their names there."""
    for block, layers in params.items():
        prefix = layout.blocks[block]
        if "bias" in layers:  # a layer of its own
            yield from (Entry((block, leaf), (f"{prefix}.{_LEAVES[leaf]}",)) for leaf in layers)
            continue
        table = layout.attention if "qkv" in layers else {layer: (name,) for layer, name in layout.res_block.items()}
        for layer, leaves in layers.items():
            for leaf in leaves:
                yield Entry((block, layer, leaf), tuple(f"{prefix}.{name}.{_LEAVES[leaf]}" for name in table[layer]))


def from_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping, layout: Layout, num_heads: Callable[[int], int]
) -> Conversion:
    """Converts the tensors of another library into our parameters.

    Args:
        tensors: name -> array of any float type.
        shapes: our parameters as `jax.eval_shape` gives them.
        layout: the names.
        num_heads: channels -> attention heads of a layer.
    """
    left = {layout.aliases(name): name for name in tensors}
    params, missing, misshapen = {}, [], []
    for path, names in entries(shapes, layout):
        shape, found = _get(shapes, path).shape, []
        for name, wanted in zip(names, _shapes(path[-1], shape, len(names)), strict=True):
            if name not in left:
                missing.append(name)
                continue
            tensor = _squeezed(np.asarray(tensors[left.pop(name)]), len(wanted))
            if tensor.shape != wanted:
                misshapen.append(f"{name} {list(tensor.shape)}, not {list(wanted)}")
            elif not np.all(np.isfinite(tensor)):
                misshapen.append(f"{name} with numbers that are not finite")
            else:
                found.append(tensor.astype(np.float32))
        whole = len(found) == len(names)
        value = _ours(path[-1], found, num_heads(shape[-1] // 3)) if whole else np.zeros(shape, np.float32)
        _set(params, path, np.ascontiguousarray(value))
    return Conversion(params, missing, sorted(left.values()), misshapen)


def to_tensors(params: Mapping, layout: Layout, num_heads: Callable[[int], int]) -> dict[str, np.ndarray]:
    """Returns our parameters as the tensors of another library, name -> float32; the inverse of `from_tensors`."""
    found = {}
    for path, names in entries(params, layout):
        value = np.asarray(_get(params, path), np.float32)
        tensors = _theirs(path[-1], value, len(names), num_heads(value.shape[-1] // 3))
        found |= {name: np.ascontiguousarray(tensor) for name, tensor in zip(names, tensors, strict=True)}
    return found


def count_levels(params: Mapping) -> int:
    """Returns the number of resolutions of a U-Net, from the names of its blocks."""
    return 1 + max(int(block.removeprefix("up").partition("_")[0]) for block in params if block.startswith("up"))


def _ours(leaf, tensors, heads):
    turned = [tensor.transpose(*range(2, tensor.ndim), 1, 0) if leaf == "kernel" else tensor for tensor in tensors]
    if len(turned) == 1:
        return turned[0]
    lead = turned[0].shape[:-1]
    return np.stack([one.reshape(*lead, heads, -1) for one in turned], axis=-2).reshape(*lead, -1)


def _theirs(leaf, value, parts, heads):
    if parts > 1:
        lead = value.shape[:-1]
        by_head = value.reshape(*lead, heads, parts, -1)
        values = [by_head[..., i, :].reshape(*lead, -1) for i in range(parts)]
    else:
        values = [value]
    return [one.transpose(one.ndim - 1, one.ndim - 2, *range(one.ndim - 2)) if leaf == "kernel" else one for one in values]


def _shapes(leaf, shape, parts):
    """Returns the shapes that an array of ours has there."""
    last = shape[-1] // parts
    return [(last, shape[-2], *shape[:-2]) if leaf == "kernel" else (last,)] * parts


def _squeezed(tensor, ndim):
    """Drops trailing axes of length 1, which a dense layer has where it is a convolution."""
    while tensor.ndim > ndim and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    return tensor


def _get(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _set(tree, path, value):
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def norm_groups(params: Mapping, network: UNet) -> set[int]:
    """Returns the numbers of groups of a network's norms, but of one that the middle's attention has for itself."""
    own = "middle_attention" if network.attn_norm_num_groups > 0 else None
    norms = Norms(network.norm_num_groups, network.norm_eps)
    scales = (
        layer["scale"]
        for block, layers in params.items()
        if block != own
        for layer in (layers, *layers.values())
        if "scale" in layer
    )
    return {norms.of(scale.shape[0]) for scale in scales}


def shift_time(params: Mapping, network: UNet, shift: float) -> dict[str, Any]:
    """Returns parameters with which the network at time n does what it did at n + shift.

    The sinusoidal embedding of n + shift is that of n, each pair (cos, sin) turned by its frequency times the shift. The first
    layer after it takes the turn in.
    """
    if not shift:
        return dict(params)
    kernel = np.asarray(params["time_0"]["kernel"], np.float64)
    half = len(kernel) // 2
    angles = np.exp(-math.log(10_000.0) * np.arange(half) / (half - network.freq_shift)) * shift
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    of_cos, of_sin = (kernel[:half], kernel[half:]) if network.flip_sin_to_cos else (kernel[half:], kernel[:half])
    turned = [cosine * of_cos + sine * of_sin, cosine * of_sin - sine * of_cos]
    kernel = np.concatenate(turned if network.flip_sin_to_cos else turned[::-1]).astype(np.float32)
    return {**params, "time_0": {**params["time_0"], "kernel": kernel}}
