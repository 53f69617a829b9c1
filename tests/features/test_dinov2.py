"""DINOv2: Pillow's resize, interpolated positions, and files in two layouts. Against transformers: tests/crosscheck."""

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features import dinov2
from advdiff_jax.features.network import extract


def random_tensors(layout, width=384, grid=37):
    rng = np.random.default_rng(0)
    return {name: 0.05 * rng.standard_normal(shape, np.float32) for name, shape in dinov2.shapes(layout, width, grid).items()}


@pytest.mark.parametrize("shape", [(28, 40, 1), (300, 260, 3), (224, 224, 3)])
def test_images_are_resized_as_by_pillow(shape):
    """Its sums are in integers: a value that lies halfway between two grey levels may go to the other.

    Rows first in two calls, because Pillow 13 takes the columns of tall images first.
    """
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    wanted = Image.fromarray(image.squeeze()).convert("RGB")
    for size in ((224, shape[0]), (224, 224)):
        wanted = wanted.resize(size, Image.Resampling.BICUBIC)
    found = np.asarray(jax.jit(dinov2.resized, static_argnums=1)(image[None].astype(np.float32), 224))[0]
    difference = np.abs(found - np.asarray(wanted))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 2e-3


def test_positions_are_interpolated():
    """Keys' kernel for a = -0.75 over four patches, of which those beyond the border are the border's."""
    positions = np.random.default_rng(0).standard_normal((1, 1 + 37 * 37, 3), np.float32)
    found = dinov2.interpolated(positions, 16)
    np.testing.assert_array_equal(found[0, 0], positions[0, 0])
    table = positions[0, 1:].reshape(37, 37, 3)

    def taps(i):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for k in range(int(at) - 1, int(at) + 3):
            x = abs(at - k)
            weight = 1.25 * x**3 - 2.25 * x**2 + 1.0 if x < 1 else -0.75 * x**3 + 3.75 * x**2 - 6.0 * x + 3.0
            yield min(max(k, 0), 36), weight

    for row, column in ((0, 0), (3, 8), (15, 1), (15, 15)):
        wanted = sum(table[k, m] * v * w for k, v in taps(row) for m, w in taps(column))
        np.testing.assert_allclose(found[0, 1 + row * 16 + column], wanted, atol=1e-5)
    assert dinov2.interpolated(found, 16) is found


def test_both_layouts_give_the_same_features(tmp_path):
    theirs = random_tensors(dinov2.TRANSFORMERS)
    ours = {}
    for name in dinov2.shapes(dinov2.FACEBOOK, 384):
        ours[name] = np.concatenate([theirs[one] for one in names_there(name)])
    found = []
    for name, tensors in (("facebook", ours), ("transformers", theirs)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        network = dinov2.dinov2(str(tmp_path / f"{name}.safetensors"))
        images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
        found.append(extract(network, images, 2).vectors)
    assert found[0].shape == (2, network.dimension) == (2, 384)
    assert found[0].std(axis=0).max() > 1e-4
    np.testing.assert_array_equal(*found)


def names_there(name):
    """facebook's name -> transformers' names."""
    stem, _, leaf = name.rpartition(".")
    a, b = dinov2.FACEBOOK, dinov2.TRANSFORMERS
    outside = {getattr(a, field): getattr(b, field) for field in ("token", "positions", "patches", "norm")}
    if name in outside or stem in outside:
        return [outside[name]] if name in outside else [f"{outside[stem]}.{leaf}"]
    _, number, inner = name.split(".", 2)
    prefix = b.block.format(number)
    scales = {a.scales[ours]: b.scales[ours] for ours in a.scales}
    if inner in scales:
        return [prefix + scales[inner]]
    (layer,) = [layer for layer, names in a.layers.items() if names[0] == inner.rpartition(".")[0]]
    return [f"{prefix}{one}.{leaf}" for one in b.layers[layer]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_token": None}, "cls_token is missing"),
        ({"cls_token": np.zeros((1, 1, 1536))}, r"ViT-S, B or L: cls_token has 1536 channels, not one of \[384, 768, 1024\]"),
        ({"pos_embed": np.zeros((1, 1371, 384))}, r"ViT-S/14: pos_embed has the shape \[1, 1371, 384\], not \[1, 1370, 384\]"),
        ({"blocks.11.ls2.gamma": None}, r"ViT-S/14: blocks\.11\.ls2\.gamma is missing"),
        ({"register_tokens": np.zeros((1, 4, 384))}, r"ViT-S/14: register_tokens is not in that network"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    tensors = {name: np.zeros(shape, np.float32) for name, shape in dinov2.shapes(dinov2.FACEBOOK, 384).items()}
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(InvalidArgument, match=message):
        dinov2.from_tensors(changed)
