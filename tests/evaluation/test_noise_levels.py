"""The two readings of an image's noise against noise that was added, and the rule of the warning."""

import jax
import numpy as np
import pytest

from advdiff_jax.data import classical, photos
from advdiff_jax.data.pixels import to_float
from advdiff_jax.diffusion import schedules
from advdiff_jax.evaluation import noise_levels
from tests.processes import independent_gaussians

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_wavelets_find_the_noise_of_each_image(channels):
    smooth = np.repeat(np.linspace(-1, 1, 32)[:, None], 32, axis=1)[None, ..., None].repeat(channels, axis=3)
    stds = np.array([0.02, 0.05, 0.1, 0.2] * 5)
    noisy = smooth + stds[:, None, None, None] * RNG.standard_normal((20, 32, 32, channels))
    np.testing.assert_allclose(classical.by_wavelets(noisy), stds, rtol=0.35)
    assert np.mean(classical.by_wavelets(noisy) / stds) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("std", [0.1, 0.2, 0.4])
def test_the_model_finds_the_noise_where_nothing_else_is(std):
    """Points on a line in R^400 under noise: the exact model explains u^2 / (s^2 + u^2). One image needs a u near its s."""
    dim, schedule = 400, schedules.DDPMGrid()
    denoise = independent_gaussians(schedule, std**2 + (np.arange(dim) == 0))
    y = std * RNG.standard_normal((50, dim)).astype(np.float32)
    y[:, 0] += RNG.standard_normal(50)
    keys = jax.random.split(jax.random.key(0), len(y))
    for level in (0.5 * std, std, 2.0 * std):
        share = np.asarray(noise_levels.explained(schedule, denoise, keys, y, level, 4))
        found = noise_levels.from_share(share, level)
        assert np.median(found) == pytest.approx(std, rel=0.04)
        if level >= std:
            np.testing.assert_allclose(found, std, rtol=0.35)


def test_a_share_outside_its_range_has_a_level():
    np.testing.assert_allclose(noise_levels.from_share(np.array([-0.1, 0.5, 1.2]), 0.3), [0.3 * np.sqrt(999), 0.3, 0.0])


def test_photographs_are_read_with_their_texture():
    clean = to_float(photos.photo_crops(200, 0, 32))
    noisy = clean + 0.2 * RNG.standard_normal(clean.shape)
    found = [float(np.median(classical.by_wavelets(images))) for images in (clean, noisy)]
    assert found[0] < 0.05
    assert found[1] == pytest.approx(0.2, rel=0.05)


def test_only_samples_smoother_than_the_cleanest_tenth_are_warned_of():
    train = np.concatenate([RNG.normal(0.03, 0.005, 100), RNG.normal(0.2, 0.01, 900)])
    assert not noise_levels.is_smoother(RNG.normal(0.03, 0.005, 500), train)  # as the clean examples
    assert not noise_levels.is_smoother(train, train)
    assert noise_levels.is_smoother(RNG.normal(0.02, 0.005, 500), train)
    assert noise_levels.summary(train, train) == {
        "": pytest.approx(0.2, rel=0.02),
        "_dirty": pytest.approx(0.2, rel=0.02),
        "_cleanest": pytest.approx(0.03, rel=0.1),
    }
