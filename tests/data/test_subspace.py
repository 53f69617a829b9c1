"""Linear subspaces of images: PCA against scikit-learn's, and distances in closed form."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from advdiff_jax.data import photos, pixels, sources, subspace
from advdiff_jax.errors import InvalidArgument


@pytest.fixture(scope="module", params=["digits", "photos"])
def images(request):
    return sources.digits().train if request.param == "digits" else pixels.to_float(photos.photo_crops(200, 0, 12))


def test_is_pca(images):
    """More images than pixels (digits) and fewer (photographs): both Gram matrices."""
    found = subspace.fit_subspace(images, 6)
    pca = PCA(6, svd_solver="full").fit(images.reshape(len(images), -1).astype(np.float64))
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(found.basis * pca.components_, axis=1)), 1.0, atol=1e-4)
    np.testing.assert_allclose(found.std**2, pca.explained_variance_ * (1 - 1 / len(images)), rtol=1e-3)


def test_projected_images_lie_in_the_subspace_and_noise_is_measured_exactly(images):
    truth = subspace.fit_subspace(images, 6)
    train, clean = subspace.projected(images, truth)
    np.testing.assert_allclose(truth.project(train), train, atol=1e-5)
    assert subspace.distances(train, truth)["subspace_distance"] < 1e-5
    assert subspace.principal_angles(train, truth).max() < 0.1
    drawn = clean(np.random.default_rng(0), len(train))  # all of them, shuffled
    assert sorted(x.tobytes() for x in drawn) == sorted(x.tobytes() for x in train)
    dimension = np.prod(images.shape[1:])
    noisy = train + np.random.default_rng(1).normal(0, 0.1, train.shape)
    numbers = subspace.distances(noisy, truth)
    expected = 0.1 * np.sqrt(1 - 6 / dimension)  # the noise outside the subspace
    assert numbers["subspace_distance"] == pytest.approx(expected, rel=0.01)
    assert numbers["subspace_psnr"] == pytest.approx(20 * np.log10(2 / expected), abs=0.1)


def test_gaussian_images_have_the_moments_of_the_images(images):
    truth = subspace.fit_subspace(images, 6)
    train, clean = subspace.gaussian(images, truth, seed=0)
    assert train.shape == images.shape
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


def test_a_dimension_out_of_range_is_refused(images):
    largest = min(len(images), images[0].size) - 1
    for subspace_dim in (0, largest + 1):
        with pytest.raises(InvalidArgument, match=rf"subspace_dim={subspace_dim} is out of range .*\[1, {largest}\]"):
            subspace.fit_subspace(images, subspace_dim)
