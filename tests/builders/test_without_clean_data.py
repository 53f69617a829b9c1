"""What is measured without clean data: the noise in samples and in the training set, and samples under that noise.

Clean data are replaced by objects that refuse to be read.
"""

import json

import numpy as np
import pytest
import scipy.ndimage

from advdiff_jax.builders import proximal
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs, output_of
from advdiff_jax.builders.metrics import EvalInputs
from advdiff_jax.builders.process import build_process
from advdiff_jax.data import photos, pixels
from advdiff_jax.diffusion.model import Model
from advdiff_jax.evaluation.fidelity import frechet_distance
from configs import image_folder
from tests.processes import independent_gaussians

pytestmark = pytest.mark.usefixtures("unpainted")

COUNT = 600
CLIPPED_STD = 0.188  # RMS change of a photo crop by noise of std 0.2, clipped to black and white


class Unreadable:
    """Examples that nobody may read."""

    shape, dtype = (COUNT, 16, 16, 3), np.dtype(np.uint8)

    def __len__(self):
        return COUNT

    def __getitem__(self, indices):
        raise AssertionError("clean data were read")

    def __call__(self, rng, n):
        raise AssertionError("clean data were drawn")


@pytest.fixture(scope="module")
def config():
    config = image_folder.get_config("ddpm")
    overrides = {"data.source": "photo_crops", "data.size": 16, "data.num_examples": COUNT, "data.noise_std": 0.2}
    overrides["data.fraction"] = 0.9
    config.update_from_flattened_dict(overrides | {"evaluation.reading_draws": 1})
    return config


@pytest.fixture(scope="module")
def data(config):
    found, no = build_data(config), Unreadable()
    dirty = found.train[np.arange(COUNT)]
    return found._replace(source=found.source._replace(train=no, clean=no), corrupted=no, train=dirty)


@pytest.fixture(scope="module")
def samples():
    """What four models would draw: the truth, the truth under the dirt, and the truth under two blurs."""
    truth = pixels.to_float(photos.photo_crops(COUNT, 1, 16))
    is_dirty = np.random.default_rng(1).uniform(size=(COUNT, 1, 1, 1)) < 0.9
    dirty = truth + 0.2 * is_dirty * np.random.default_rng(2).standard_normal(truth.shape)
    blurs = {f"blur {std:g}": scipy.ndimage.gaussian_filter(truth, (0, std, std, 0)) for std in (0.5, 1.0)}
    stored = {"truth": truth, "dirty": dirty, **blurs}
    return {name: pixels.to_float(pixels.to_bytes(images)) for name, images in stored.items()}


def contrasts(images):
    """Features [n, 7]: mean and contrast of grey, and the logarithm of its differences over one to three pixels."""
    grey = images.mean(axis=3)
    across = [grey[:, :, k:] - grey[:, :, :-k] for k in (1, 2, 3)] + [grey[:, k:] - grey[:, :-k] for k in (1, 2)]
    logs = [np.log(difference.std(axis=(1, 2)) + 0.01) for difference in across]
    return np.stack([grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), *logs], axis=1)


def measure(config, data, drawn):
    schedule = build_process(config).schedule
    model = Model(schedule, independent_gaussians(schedule, 0.25))
    return proximal.compute(config, EvalInputs(drawn, data, Unreadable(), pixels.to_float, model), contrasts)


def test_the_truth_is_nearest_once_it_carries_the_noise(config, data, samples):
    """The plain distance to the dirty set prefers the dirty samples."""
    found = {name: measure(config, data, drawn) for name, drawn in samples.items()}
    distance = {name: numbers[f"proximal_fd_{config.evaluation.features}"] for name, numbers in found.items()}
    assert distance["truth"] < 0.5 * min(distance[name] for name in ("dirty", "blur 0.5", "blur 1"))
    assert distance["blur 0.5"] < 0.5 * distance["blur 1"]
    dirty = contrasts(pixels.to_float(data.train))
    plain = {name: frechet_distance(contrasts(drawn), dirty) for name, drawn in samples.items()}
    assert min(plain, key=plain.get) == "dirty"
    # What the data got, and what the samples got.
    assert found["truth"]["proximal_std_wavelet"] == pytest.approx(CLIPPED_STD, rel=0.1)
    assert found["truth"]["proximal_std"] == pytest.approx(CLIPPED_STD, rel=0.1)
    assert all(output_of(name).meaning for name in found["truth"])


def test_a_given_std_replaces_the_readings(config, data, samples):
    config = config.copy_and_resolve_references()
    distance = {}
    for std in (0.05, 0.2, 0.4):
        config.evaluation.proximal_std = std
        found = measure(config, data, samples["truth"])
        name = f"proximal_fd_{config.evaluation.features}"
        assert found.keys() == {name, "proximal_std"}
        assert found["proximal_std"] == pytest.approx(std)
        distance[std] = found[name]
    assert min(distance, key=distance.get) == 0.2


@pytest.mark.parametrize(("name", "warns"), [("truth", False), ("dirty", False), ("blur 1", True)])
def test_noise_levels_warn_of_samples_smoother_than_the_cleanest_tenth(config, data, samples, tmp_path, name, warns):
    predict = lambda x, t: 0.0 * x  # explains nothing: the model's reading is out of its range, and wavelets are trusted
    inputs = DiagnosticInputs(samples[name], data, predict, None, tmp_path)
    diagnosis = DIAGNOSTICS["noise_levels"].compute(config, inputs)
    assert ("half of the samples have less noise (by wavelets" in diagnosis.warning) == warns
    assert diagnosis.numbers["noise_std_wavelet_dirty"] == pytest.approx(CLIPPED_STD, rel=0.1)
    if name == "dirty":
        assert diagnosis.numbers["noise_std_wavelet"] == pytest.approx(CLIPPED_STD, rel=0.1)
    assert json.loads((tmp_path / "noise_levels.json").read_text()).keys() == {"wavelet", "model"}
    assert all(output_of(name).meaning for name in diagnosis.numbers)
