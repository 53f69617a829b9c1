"""FID's network: TensorFlow 1's resize, folded norms, the order of its features. Against torch-fidelity: tests/crosscheck."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import softmax

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features import inception
from advdiff_jax.features.network import extract


def constant_tensors():
    """Weights by which every convolution returns relu of its norm's bias, whatever the image."""
    rng, found = np.random.default_rng(0), {}
    for name, shape in inception.shapes().items():
        if name.startswith("fc") or name.endswith("bn.bias"):
            found[name] = rng.standard_normal(shape, np.float32)
        else:
            found[name] = np.ones(shape, np.float32) if name.endswith("running_var") else np.zeros(shape, np.float32)
    return found


@pytest.mark.parametrize(("height", "width", "side"), [(4, 5, 9), (9, 7, 4), (6, 6, 6)])
def test_pixel_i_is_read_at_i_times_the_scale(height, width, side):
    image = np.random.default_rng(0).uniform(0, 255, (height, width))
    resize = jax.jit(inception.resized, static_argnums=1)
    found = np.asarray(resize(image[None, :, :, None].astype(np.float32), side))[0, :, :, 0]
    for i in range(side):
        for j in range(side):
            y, x = i * height / side, j * width / side
            top, left = int(y), int(x)
            down, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = image[top, left] * (1 - dx) + image[top, right] * dx
            lower = image[down, left] * (1 - dx) + image[down, right] * dx
            assert found[i, j] == pytest.approx(upper * (1 - dy) + lower * dy, abs=1e-2)


def test_norms_are_folded_into_the_convolutions():
    tensors, name = constant_tensors(), "Mixed_6c.branch7x7_2"
    rng = np.random.default_rng(1)
    for part in ("conv.weight", "bn.weight", "bn.running_mean"):
        tensors[f"{name}.{part}"] = rng.standard_normal(tensors[f"{name}.{part}"].shape).astype(np.float32)
    tensors[f"{name}.bn.running_var"] = rng.uniform(0.5, 2.0, tensors[f"{name}.bn.running_var"].shape).astype(np.float32)
    layer = inception.from_tensors(tensors).params["params"]["Mixed_6c"]["branch7x7_2"]
    patch = rng.standard_normal((1, 7, 160))  # what the kernel of 1 x 7 sees
    found = np.einsum("hwi,hwio->o", patch, layer["kernel"]) + layer["bias"]
    convolved = np.einsum("hwi,oihw->o", patch, tensors[f"{name}.conv.weight"])
    scale, bias, mean, variance = (tensors[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
    np.testing.assert_allclose(found, (convolved - mean) / np.sqrt(variance + 1e-3) * scale + bias, rtol=1e-4, atol=1e-4)


def test_features_are_the_last_block_s_branches_in_order_and_probabilities_leave_the_bias_out(tmp_path):
    tensors = constant_tensors()
    save_file(tensors | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(1, np.int64)}, tmp_path / "fid.safetensors")
    network = inception.inception(str(tmp_path / "fid.safetensors"))
    found = extract(network, np.zeros((1, 8, 8, 1), np.uint8))
    branches = ("1x1", "3x3_2a", "3x3_2b", "3x3dbl_3a", "3x3dbl_3b", "_pool")
    wanted = np.concatenate([np.maximum(tensors[f"Mixed_7c.branch{one}.bn.bias"], 0.0) for one in branches])
    np.testing.assert_allclose(found.vectors, wanted[None], rtol=1e-5)
    assert network.dimension == 2048
    np.testing.assert_allclose(found.probabilities[0], softmax(tensors["fc.weight"] @ wanted), rtol=1e-2, atol=1e-6)


def test_weights_of_another_network_are_refused():
    tensors = constant_tensors()
    with pytest.raises(InvalidArgument, match=r"FID's Inception: fc\.weight has the shape \[1000, 2048\], not \[1008, 2048\]"):
        inception.from_tensors(tensors | {"fc.weight": np.zeros((1000, 2048), np.float32)})
    with pytest.raises(InvalidArgument, match=r"FID's Inception: AuxLogits\.fc\.weight is not in that network"):
        inception.from_tensors(tensors | {"AuxLogits.fc.weight": np.zeros((1, 1), np.float32)})
