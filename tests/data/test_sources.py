"""Clean sources: their distributions, and that seeds reproduce them."""

import numpy as np
import pytest

from advdiff_jax.data import photos, pixels, sources
from advdiff_jax.errors import InvalidArgument


def test_plane3d_is_a_uniform_square_on_its_plane():
    source = sources.plane3d(20_000, seed=0, half_width=1.5)
    np.testing.assert_allclose(source.train @ np.ones(3), 0.0, atol=1e-6)
    np.testing.assert_allclose(source.plane @ source.plane.T, np.eye(2), atol=1e-12)
    on_plane = source.train @ source.plane.T
    assert np.abs(on_plane).max() <= 1.5 + 1e-6
    np.testing.assert_allclose(on_plane.std(axis=0), 1.5 / np.sqrt(3), rtol=0.02)
    np.testing.assert_array_equal(source.train, sources.plane3d(20_000, 0, 1.5).train)
    assert not np.array_equal(source.train[:9], source.clean(np.random.default_rng(1), 9))


def test_mixture_moments_and_outliers():
    kwargs = {"dim": 3, "components": 5, "spread": 1.0, "component_std": 0.05}
    clean = sources.mixture(20_000, 0, outlier_fraction=0.0, **kwargs)
    mixed = sources.mixture(20_000, 0, outlier_fraction=0.2, **kwargs)
    changed = np.any(clean.train != mixed.train, axis=1)
    assert changed.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 20_000))
    np.testing.assert_allclose(mixed.train[changed].std(axis=0), 6.0 / np.sqrt(12), rtol=0.03)
    known = sources.mixture_distribution(**kwargs).parameters
    mean = known["weights"] @ known["means"]
    covariance = np.cov(known["means"].T, ddof=0) + 0.05**2 * np.eye(3)
    other_seed = sources.mixture(20_000, 1, outlier_fraction=0.0, **kwargs)
    for points in (clean.train, other_seed.train, mixed.clean(np.random.default_rng(0), 20_000)):
        np.testing.assert_allclose(points.mean(axis=0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.05)


def test_gaussian_has_its_standard_deviations():
    stds = (0.05, 0.5, 2.0)
    source = sources.gaussian(20_000, 0, stds)
    np.testing.assert_allclose(np.cov((source.train / stds).T), np.eye(3), atol=0.04)
    np.testing.assert_allclose(np.mean(source.train / stds, axis=0), 0.0, atol=0.04)
    np.testing.assert_array_equal(sources.gaussian_distribution(stds).parameters["covariance"], np.diag(np.square(stds)))


def test_digits_are_scikit_learns():
    source = sources.digits()
    assert source.train.shape == (1797, 8, 8, 1)
    assert (source.train.min(), source.train.max()) == (-1.0, 1.0)
    clean = source.clean(np.random.default_rng(0), 1797)  # all of them, shuffled
    assert sorted(x.tobytes() for x in clean) == sorted(x.tobytes() for x in source.train)
    assert np.bincount(sources.digit_labels()).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_clean_draws_of_images_are_floats_without_replacement():
    train = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    source = sources.images(train)
    assert source.on_the_fly
    drawn = source.clean(np.random.default_rng(0), 15)
    assert drawn.dtype == np.float32
    assert len(np.unique(drawn)) == 15
    np.testing.assert_array_equal(np.sort(source.clean(np.random.default_rng(0), 99), axis=0), pixels.to_float(train))


def test_photo_crops_are_reproducible_and_varied():
    x = photos.photo_crops(40, 0, 32)
    np.testing.assert_array_equal(x, photos.photo_crops(40, 0, 32))
    assert not np.array_equal(x, photos.photo_crops(40, 1, 32))
    assert x.shape == (40, 32, 32, 3)
    assert len({crop.tobytes() for crop in x}) == 40
    assert np.std([crop.mean() for crop in x]) > 20  # of several photographs


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: sources.plane3d(10, 0, 0.0), r"half_width=0\.0 is out of range: set a value in \(0, inf\)"),
        (lambda: sources.mixture(10, 0, 2, 3, 1.0, 0.1, 1.1), r"outlier_fraction=1\.1 is out of range"),
        (lambda: sources.gaussian(10, 0, (0.1, -1.0)), r"stds=\[0\.1, -1\.0\] is out of range"),
        (lambda: sources.gaussian(10, 0, ()), r"stds=\[\] is out of range"),
    ],
)
def test_arguments_out_of_range_are_refused(factory, message):
    with pytest.raises(InvalidArgument, match=message):
        factory()
