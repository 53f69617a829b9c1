"""A Gaussian fitted by EM to noisy and masked examples, against the maximum of the likelihood and the truth."""

import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.sampling import gaussian_prior

MEAN = np.array([1.0, -0.5, 0.0])
COVARIANCE = np.array([[1.0, 0.7, 0.0], [0.7, 0.8, 0.1], [0.0, 0.1, 0.4]])


def examples(count, std, covariance=COVARIANCE):
    rng = np.random.default_rng(0)
    clean = rng.multivariate_normal(MEAN, covariance, count)
    return clean + np.asarray(std).reshape(-1, 1) * rng.standard_normal(clean.shape)


def test_the_fit_tends_to_the_maximum_of_the_likelihood():
    y = examples(500, 0.5)
    found = gaussian_prior.fit(y, np.full(500, 0.5), steps=400)
    values, vectors = np.linalg.eigh(np.cov(y.T, bias=True))
    expected = (vectors * np.maximum(values - 0.25, 0.0)) @ vectors.T
    np.testing.assert_allclose(found.mean, y.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.covariance, expected, atol=0.002)


def test_a_direction_of_noise_alone_falls_as_the_closed_form_says():
    """v' = K^2 (S^2 + s^2) + v s^2 / (v + s^2), with the dirty data as the first model."""
    y, s2 = examples(2000, 0.5, np.diag([1.0, 1.0, 0.0])), 0.25
    own = np.cov(y.T, bias=True)
    y = (y - y.mean(0)) @ np.linalg.inv(np.linalg.cholesky(own)).T @ np.diag(np.sqrt([1.25, 1.25, 0.25]))
    v = 0.25
    for laps in range(1, 11):
        v = (v / (v + s2)) ** 2 * 0.25 + v * s2 / (v + s2)
        found = gaussian_prior.fit(y, np.full(2000, 0.5), steps=laps)
        assert found.covariance[2, 2] == pytest.approx(v, rel=1e-6)


def test_levels_and_masks_of_each_example_are_used():
    count = 2000
    std = np.where(np.arange(count) % 2, 0.8, 0.05)
    mask = np.random.default_rng(1).uniform(size=(count, 3)) < 0.6
    y = np.where(mask, examples(count, std), 99.0)  # what is hidden is not read
    found = gaussian_prior.fit(np.where(mask, y, 0.0), std, 100, mask)
    np.testing.assert_allclose(found.mean, MEAN, atol=0.06)
    np.testing.assert_allclose(found.covariance, COVARIANCE, atol=0.08)
    whole = gaussian_prior.fit(examples(count, std), std, 30, np.ones((count, 3), bool))
    np.testing.assert_allclose(whole.covariance, gaussian_prior.fit(examples(count, std), std, 30).covariance, atol=1e-8)


def test_draws_have_the_posterior_s_mean_and_covariance():
    count, y, mask, std = 40_000, np.array([2.0, 0.0, -0.3]), np.array([True, False, True]), 0.4
    model = gaussian_prior.Gaussian(MEAN, COVARIANCE)
    args = np.tile(np.where(mask, y, 0.0), (count, 1)), np.full(count, std), np.tile(mask, (count, 1))
    found = gaussian_prior.draw(np.random.default_rng(0), model, *args)
    matrix = np.eye(3)[mask]
    gain = COVARIANCE @ matrix.T @ np.linalg.inv(matrix @ COVARIANCE @ matrix.T + std**2 * np.eye(2))
    np.testing.assert_allclose(found.mean(0), MEAN + gain @ (y[mask] - MEAN[mask]), atol=0.01)
    np.testing.assert_allclose(np.cov(found.T), COVARIANCE - gain @ matrix @ COVARIANCE, atol=0.01)


def test_masked_examples_of_many_dimensions_are_refused():
    with pytest.raises(InvalidArgument, match=r"at most 256 dimensions, and these have 300: set start='dirty'"):
        gaussian_prior.fit(np.zeros((4, 300)), np.zeros(4), 1, np.ones((4, 300), bool))
