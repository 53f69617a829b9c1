"""Gains of samples on the principal directions of their training data, and the noise floor of a linear model."""

import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import principal_directions


def test_gains_of_points_built_by_hand():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    stds, kept = np.array([2.0, 1.0, 0.5, 0.0]), np.array([1.0, 0.5, 0.25, 3.0])
    train, drawn = (rng.standard_normal((20_000, 4)) * stds @ basis for _ in range(2))
    samples = (drawn @ basis.T * kept) @ basis
    found, gains = principal_directions.gains(train, samples)
    np.testing.assert_allclose(found, stds[:3], rtol=0.03)  # the flat direction has no gain
    np.testing.assert_allclose(gains, kept[:3], rtol=0.03)
    with pytest.raises(InvalidArgument, match="3"):
        principal_directions.gains(train[:3], samples)


def test_of_large_images_the_central_square_is_looked_at(monkeypatch):
    monkeypatch.setattr(principal_directions, "SIDE", 4)
    images = np.random.default_rng(0).standard_normal((50, 8, 6, 1))
    outside = images.copy()
    outside[:, :2], outside[:, 6:], outside[:, :, :1], outside[:, :, 5:] = 5.0, 5.0, 5.0, 5.0
    for found, wanted in zip(
        principal_directions.gains(outside, outside), principal_directions.gains(images, images), strict=True
    ):
        assert len(found) == 4 * 4
        np.testing.assert_array_equal(found, wanted)


def test_stds_of_half_the_data_are_not_biased_by_the_choice_of_directions():
    """White noise, few examples: the smallest direction found in all of it would show half the true standard deviation."""
    noise = np.random.default_rng(0).standard_normal((200, 64))
    stds, _ = principal_directions.gains(noise, noise)
    assert stds.min() > 0.75


def test_the_noise_floor_of_a_linear_model_is_half_the_noise_that_fills_all_directions():
    noise = 0.3 * np.random.default_rng(0).standard_normal((20_000, 6))
    assert principal_directions.noise_level(noise, 0.2) == pytest.approx(0.15, rel=0.03)
    # On two of six directions without variance, all noise is explained there.
    assert principal_directions.noise_level(noise * (np.arange(6) > 1), 0.5) == pytest.approx(0.15 * np.sqrt(4 / 3), rel=0.05)
