"""Fidelity measures against torch-fidelity and prdc, on features of the size of VGG16's."""

import tests.crosscheck.without_kernels  # noqa: F401 - before what imports torchvision

# isort: split

import json
import subprocess
import sys

import numpy as np
import prdc
import pytest
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from advdiff_jax.data import photos
from advdiff_jax.evaluation import fidelity
from advdiff_jax.features import inception
from advdiff_jax.features.network import extract
from advdiff_jax.modes import sample_files
from tests.crosscheck.check_features import inception_file  # noqa: F401 - a fixture
from tests.launching import ROOT

N, M, F = 1500, 1200, 64


@pytest.fixture(scope="module")
def sets():
    """Returns features as a ReLU network has them, of two distributions that overlap."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((F, F)) / np.sqrt(F)
    samples = np.maximum(rng.standard_normal((N, F)) @ mix + 0.1, 0.0)
    reference = np.maximum(1.1 * rng.standard_normal((M, F)) @ mix, 0.0)
    return samples.astype(np.float32), reference.astype(np.float32)


def test_frechet_distance(sets):
    statistics = [
        {"mu": one.mean(axis=0, dtype=np.float64), "sigma": np.cov(one.astype(np.float64), rowvar=False)} for one in sets
    ]
    wanted = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fidelity.frechet_distance(*sets) == pytest.approx(wanted, rel=1e-6)


def test_kernel_distance(sets):
    tensors = [torch.from_numpy(one) for one in sets]
    wanted = metric_kid.kid_features_to_metric(*tensors, verbose=False)
    found = fidelity.kernel_distance(*sets)
    # Theirs is computed in float32, whose sums of kernels near 1 are exact to about 1e-7.
    assert found.value == pytest.approx(wanted["kernel_inception_distance_mean"], abs=1e-6)
    assert found.std == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-3)


def test_inception_score():
    logits = 3.0 * torch.from_numpy(np.random.default_rng(1).standard_normal((N, 20)))
    wanted = metric_isc.isc_features_to_metric(logits)
    found = fidelity.inception_score(torch.softmax(logits, 1).numpy())
    assert found.value == pytest.approx(wanted["inception_score_mean"], rel=1e-9)
    assert found.std == pytest.approx(wanted["inception_score_std"], rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall_density_coverage(sets, k):
    samples, reference = sets
    wanted = prdc.compute_prdc(real_features=reference, fake_features=samples, nearest_k=k)
    found = fidelity.neighbourhoods(samples, reference, k)
    for name, value in found._asdict().items():
        assert value.value == pytest.approx(wanted[name], abs=1e-6), name
    theirs = metric_prc.prc_features_to_metric(*map(torch.from_numpy, sets), prc_neighborhood=k, verbose=False)
    assert found.precision.value == pytest.approx(theirs["precision"], abs=1e-6)
    assert found.recall.value == pytest.approx(theirs["recall"], abs=1e-6)


def test_torch_fidelitys_command_on_our_files_gives_our_numbers(tmp_path, inception_file):  # noqa: F811
    """FID, KID and inception score of images that are written here as numbered PNGs, by Inception with the same weights."""
    images = photos.photo_crops(80, 0, 32)
    images[40:] = np.clip(images[40:].astype(int) + np.random.default_rng(0).integers(-40, 40, images[40:].shape), 0, 255)
    sets = {"samples": images[40:], "reference": images[:40]}
    for name, one in sets.items():
        sample_files.write_pngs(tmp_path / name, one)
    command = [
        sys.executable,
        "-m",
        "tests.crosscheck.without_kernels",
        "torch_fidelity.fidelity",
        "--cpu",
        "--json",
        "--silent",
    ]
    command += ["--fid", "--kid", "--isc", "--kid-subset-size", "40", "--no-cache", "--batch-size", "20"]
    command += ["--input1", str(tmp_path / "samples"), "--input2", str(tmp_path / "reference")]
    command += ["--feature-extractor-weights-path", str(inception_file)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = json.loads(printed[printed.index("{") :])

    network = inception.inception(str(inception_file))
    samples, reference = (extract(network, sets[name], 20) for name in ("samples", "reference"))
    distance = fidelity.frechet_distance(samples.vectors, reference.vectors)
    assert distance == pytest.approx(wanted["frechet_inception_distance"], rel=1e-3)
    found = fidelity.kernel_distance(samples.vectors, reference.vectors)
    assert found.value == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-3, abs=1e-5)
    score = fidelity.inception_score(samples.probabilities)
    assert score.value == pytest.approx(wanted["inception_score_mean"], rel=1e-4)
