"""The area under the ROC curve of a Gaussian in closed form, and what is planted is where the truth says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.data.image_corruptions import missing_block_mask
from advdiff_jax.diffusion import schedules
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import anomaly, denoising
from tests.processes import independent_gaussians

SCHEDULE, SPREAD, STRANGE, U, DRAWS = schedules.VPLinear(), 0.5, 1.5, 0.7, 3


def test_the_area_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 8, 8), bool)
    truth[::2, :3, :3] = True
    x = np.where(truth[..., None], STRANGE, SPREAD) * rng.standard_normal((400, 8, 8, 1), np.float32)
    denoise, t = independent_gaussians(SCHEDULE, SPREAD**2), SCHEDULE.time(jnp.float32(U))
    one = lambda denoise, keys, x: denoise(x, jnp.full(x.shape[:1], t)).x0
    trip = jax.jit(functools.partial(denoising.round_trip, SCHEDULE, denoise, one, t=t))
    restored = np.stack([trip(jax.random.split(jax.random.key(i), 400), x) for i in range(DRAWS)])
    found = anomaly.areas(truth, anomaly.residual(x, restored))
    a = SPREAD**2 / (SPREAD**2 + U**2)
    own, strange = (np.hypot((1 - a) * std, a * U / np.sqrt(DRAWS)) for std in (SPREAD, STRANGE))
    assert found["auroc"] == pytest.approx(2 / np.pi * np.arctan(strange / own), rel=0.03)
    assert truth.mean() < found["auprc"] < 1.0
    assert found["image_auroc"] > found["auroc"]  # an image has nine strange pixels


def test_planted_pixels_are_those_that_change_in_every_second_image():
    clean, others = np.zeros((10, 8, 8, 1), np.float32), np.full((5, 8, 8, 1), 255, np.uint8)
    x, truth = anomaly.planted(clean, others, missing_block_mask(0.25), 0)
    np.testing.assert_array_equal(truth, x[..., 0] == 1.0)
    assert truth.sum((1, 2)).tolist() == [4, 0] * 5
    with pytest.raises(InvalidArgument, match=r"patch_side plants no pixel, or all: set a value between"):
        anomaly.areas(np.zeros((2, 4, 4), bool), np.ones((2, 4, 4)))


def test_principal_components_keep_their_subspace():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((2, 16)).astype(np.float32)
    data = (rng.standard_normal((50, 2)).astype(np.float32) @ basis).reshape(50, 4, 4, 1)
    x = data[:3] + np.eye(16, dtype=np.float32)[:3].reshape(3, 4, 4, 1)
    project = anomaly.principal_components(data, 2)
    np.testing.assert_allclose(project(data), data, atol=1e-4)
    onto = np.linalg.qr(basis.T)[0]
    np.testing.assert_allclose((x - project(x)).reshape(3, 16) @ onto, 0.0, atol=1e-4)
    with pytest.raises(InvalidArgument, match="components=17 exceeds 16"):
        anomaly.principal_components(data, 17)
