"""Known-truth pictures: PCA against scikit-learn's, and errors that are known in closed form."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from advdiff_jax.data import photos, sources, subspace, wire


@pytest.fixture(scope="module", params=["digits", "photos"])
def pictures(request):
    return sources.digits().train if request.param == "digits" else wire.to_float(photos.photo_crops(300, 0, 16))


def test_is_pca(pictures):
    """Many pictures of few pixels and few pictures of many: both Gram matrices."""
    found = subspace.fit_subspace(pictures, 6)
    pca = PCA(6, svd_solver="full").fit(pictures.reshape(len(pictures), -1).astype(np.float64))
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(found.basis * pca.components_, axis=1)), 1.0, atol=1e-4)
    np.testing.assert_allclose(found.std**2, pca.explained_variance_ * (1 - 1 / len(pictures)), rtol=1e-3)


def test_projected_pictures_lie_in_it_and_noise_is_measured_exactly(pictures):
    truth = subspace.fit_subspace(pictures, 6)
    train, clean = subspace.projected(pictures, truth)
    np.testing.assert_allclose(truth.project(train), train, atol=1e-5)
    assert subspace.distances(train, truth)["subspace_distance"] < 1e-5
    assert subspace.principal_angles(train, truth).max() < 0.1
    assert clean(np.random.default_rng(0), 50).shape == (50, *pictures.shape[1:])
    dimension = np.prod(pictures.shape[1:])
    noisy = train + np.random.default_rng(1).normal(0, 0.1, train.shape)
    numbers = subspace.distances(noisy, truth)
    expected = 0.1 * np.sqrt(1 - 6 / dimension)  # the noise outside the subspace
    assert numbers["subspace_distance"] == pytest.approx(expected, rel=0.01)
    assert numbers["subspace_psnr"] == pytest.approx(20 * np.log10(2 / expected), abs=0.1)


def test_gaussian_law_has_the_pictures_moments(pictures):
    truth = subspace.fit_subspace(pictures, 6)
    train, clean = subspace.gaussian(pictures, truth, seed=0)
    assert train.shape == pictures.shape
    z = (clean(np.random.default_rng(0), 20_000).reshape(20_000, -1) - truth.mean) @ truth.basis.T
    np.testing.assert_allclose(z.std(axis=0), truth.std, rtol=0.03)
    assert np.abs(np.corrcoef(z.T) - np.eye(6)).max() < 0.03
    assert subspace.distances(train, truth)["subspace_distance"] < 1e-5


def test_principal_angles_see_a_turn_and_a_missing_direction():
    rng = np.random.default_rng(0)
    basis = np.eye(10, dtype=np.float32)
    truth = subspace.Subspace(np.zeros(10, np.float32), basis[:2], np.ones(2, np.float32))
    turned = np.stack([basis[0], np.cos(0.5) * basis[1] + np.sin(0.5) * basis[5]])
    np.testing.assert_allclose(
        subspace.principal_angles(rng.normal(size=(500, 2)) @ turned, truth), [0.0, np.degrees(0.5)], atol=1e-2
    )
    other = np.stack([basis[0], basis[7]])
    np.testing.assert_allclose(subspace.principal_angles(rng.normal(size=(500, 2)) @ other, truth), [0.0, 90.0], atol=1e-2)


def test_components_out_of_range_are_refused(pictures):
    for components in (0, 10_000):
        with pytest.raises(ValueError, match="components must lie in"):
            subspace.fit_subspace(pictures, components)


def test_photo_crops_are_reproducible_and_varied():
    x = photos.photo_crops(40, 0, 32)
    np.testing.assert_array_equal(x, photos.photo_crops(40, 0, 32))
    assert not np.array_equal(x, photos.photo_crops(40, 1, 32))
    assert x.shape == (40, 32, 32, 3)
    assert len({crop.tobytes() for crop in x}) == 40
    assert np.std([crop.mean() for crop in x]) > 20  # of several photographs
