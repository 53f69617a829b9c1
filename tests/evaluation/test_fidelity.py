"""Measures on given features against closed forms, brute force and NumPy; reference files of three kinds."""

import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.evaluation import fidelity, reference


def features(count, dimension=5, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1.0, (count, dimension)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_moments_are_numpys_in_any_batches(size):
    """Far from 0, where a sum of squares in float32 would lose every digit of the covariance."""
    x = features(1000, shift=1e4)
    found = fidelity.moments(x[start : start + size] for start in range(0, len(x), size))
    assert found.count == 1000
    np.testing.assert_allclose(found.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-9)


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    """||m1 - m2||^2 + sum (s1 - s2)^2 for diagonal covariances; the bootstrap's spread is that over fresh draws."""
    a, b = fidelity.Moments(9, np.zeros(3), np.diag([1.0, 4.0, 0.0])), fidelity.Moments(9, np.ones(3), np.diag([4.0, 4.0, 1.0]))
    assert fidelity.gaussian_distance(a, b) == pytest.approx(3.0 + 1.0 + 0.0 + 1.0)
    truth = fidelity.Moments(0, np.zeros(5), np.eye(5))
    fresh = [fidelity.gaussian_distance(fidelity.moments([features(500, seed=i, shift=0.3)]), truth) for i in range(200)]
    estimated = fidelity.frechet_spread(features(500, seed=999, shift=0.3), truth, 200)
    assert estimated == pytest.approx(np.std(fresh, ddof=1), rel=0.25)


def test_kernel_distance_is_the_unbiased_mmd():
    """Whole sets in one subset: the double sums of its definition. Equal distributions have 0 on average, unlike FD."""
    x, y = features(40), features(30, seed=1, shift=0.5)
    size = 30

    def kernel(a, b):
        return (float(a.astype(np.float64) @ b.astype(np.float64)) / 5 + 1) ** 3

    rng = np.random.RandomState(2020)
    xs, ys = x[rng.choice(40, size, replace=False)], y[rng.choice(30, size, replace=False)]
    off = [(i, j) for i in range(size) for j in range(size) if i != j]
    within = sum(kernel(z[i], z[j]) for z in (xs, ys) for i, j in off) / len(off)
    between = np.mean([kernel(a, b) for a in xs for b in ys])
    assert fidelity.kernel_distance(x, y, subsets=1).value == pytest.approx(within - 2 * between, rel=1e-9)
    same = fidelity.kernel_distance(features(2000), features(2000, seed=1), size=200)
    assert abs(same.value) < 4 * same.std / 10


def test_inception_score_of_known_classes():
    """Sure and even over K classes: K. One answer for all: 1."""
    sure = np.eye(4)[np.arange(4000) % 4]
    assert fidelity.inception_score(sure).value == pytest.approx(4.0, rel=0.01)
    assert fidelity.inception_score(np.full((100, 4), 0.25)).value == pytest.approx(1.0)


def test_neighbourhoods_are_their_definitions():
    x, y, k = features(60), features(50, seed=1, shift=0.4), 3
    between = np.linalg.norm(x[:, None].astype(np.float64) - y[None], axis=2)
    radius = {
        name: np.sort(np.linalg.norm(z[:, None].astype(np.float64) - z[None], axis=2), axis=1)[:, k]
        for name, z in (("x", x), ("y", y))
    }
    found = fidelity.neighbourhoods(x, y, k)
    assert found.precision.value == np.mean([any(between[i] < radius["y"]) for i in range(60)])
    assert found.recall.value == np.mean([any(between[:, j] < radius["x"]) for j in range(50)])
    assert found.density.value == pytest.approx(np.mean([np.sum(between[i] < radius["y"]) / k for i in range(60)]))
    assert found.coverage.value == np.mean([any(between[:, j] < radius["y"][j]) for j in range(50)])
    with pytest.raises(InvalidArgument, match="nearest_k=60 needs more examples"):
        fidelity.neighbourhoods(x, y, 60)


def test_lost_modes_lower_recall_and_noise_lowers_precision():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((8, 5))
    clean, lost = (centres[rng.integers(n, size=800)] + rng.standard_normal((800, 5)) for n in (8, 4))
    other = centres[rng.integers(8, size=800)] + rng.standard_normal((800, 5))
    same, fewer, noisy = (
        fidelity.neighbourhoods(one, clean, 5) for one in (other, lost, other + 6 * rng.standard_normal((800, 5)))
    )
    assert min(same.precision.value, same.recall.value) > 0.9
    assert same.density.value == pytest.approx(1.0, abs=0.15)
    assert fewer.precision.value > 0.9
    assert max(fewer.recall.value, fewer.coverage.value) < 0.6
    assert noisy.precision.value < 0.3


def test_reference_files_of_three_kinds(tmp_path):
    """Those written here, pytorch-fid's (mu, sigma) and ADM's (arr_0 and mu, sigma, mu_s, sigma_s)."""
    x = features(50)
    found = fidelity.moments([x])
    reference.write(tmp_path / "ours.npz", "alexnet", found, x)
    ours = reference.read(str(tmp_path / "ours.npz"), "alexnet", 5)
    np.testing.assert_array_equal(ours.vectors, x)
    np.testing.assert_array_equal(ours.moments.covariance, found.covariance)
    assert ours.about == "50 images of ours.npz"
    np.savez(tmp_path / "fid.npz", mu=found.mean, sigma=found.covariance)
    assert reference.read(str(tmp_path / "fid.npz"), "inception", 5).vectors is None
    images = np.zeros((7, 4, 4, 3), np.uint8)
    np.savez(
        tmp_path / "adm.npz", arr_0=images, mu=found.mean, sigma=found.covariance, mu_s=found.mean, sigma_s=found.covariance
    )
    assert reference.read(str(tmp_path / "adm.npz"), "inception", 5).images.shape == images.shape


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        (None, "is unreadable"),
        (b"no archive", "is unreadable"),
        ({"x": np.zeros(3)}, "holds x, and a reference needs mu and sigma"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "holds 4 features, and evaluation.features=alexnet has 5"),
        ({"mu": np.zeros(5), "sigma": np.eye(5), "network": "vgg16"}, "holds features of vgg16"),
        ({"mu": np.full(5, np.nan), "sigma": np.eye(5)}, "not finite"),
        ({"mu": np.array([None] * 5), "sigma": np.eye(5)}, "is unreadable"),
    ],
)
def test_a_wrong_reference_is_one_line(stored, line, tmp_path):
    path = tmp_path / "reference.npz"
    if stored is not None:
        path.write_bytes(stored) if isinstance(stored, bytes) else np.savez(path, **stored)
    with pytest.raises(UserError, match=line) as error:
        reference.read(str(path), "alexnet", 5)
    assert "\n" not in str(error.value)
