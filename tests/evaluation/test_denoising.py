"""The round trip against its closed form on Gaussian data, and the measures of quality against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.data import classical, photos
from advdiff_jax.data.pixels import to_float
from advdiff_jax.diffusion import schedules
from advdiff_jax.evaluation import denoising
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import sample
from tests.processes import independent_gaussians

CONTINUOUS = schedules.VPLinear()
SPREAD, DIRT = 0.5, 0.2


def expected(u, is_stochastic):
    """E (x - x0)^2 of the module's docstring."""
    a = SPREAD**2 / (SPREAD**2 + u**2) if is_stochastic else SPREAD / np.sqrt(SPREAD**2 + u**2)
    posterior = SPREAD**2 * u**2 / (SPREAD**2 + u**2) if is_stochastic else 0.0
    return (1 - a) ** 2 * SPREAD**2 + a**2 * (DIRT**2 + u**2) + posterior


@pytest.mark.parametrize(("rule", "is_stochastic"), [(steps.ddim(CONTINUOUS, 0.0), False), (steps.ancestral(CONTINUOUS), True)])
def test_the_error_over_t_is_the_closed_form(rule, is_stochastic):
    """With the exact denoiser: as dirty as the dirt for a short trip, as wrong as another draw for a long one."""
    clean_key, dirt_key, key = jax.random.split(jax.random.key(0), 3)
    x0 = SPREAD * jax.random.normal(clean_key, (2000, 16))
    y = x0 + DIRT * jax.random.normal(dirt_key, x0.shape)
    denoise = independent_gaussians(CONTINUOUS, SPREAD**2)
    times, found, wanted = grids.log_snr(400, CONTINUOUS), [], []
    us = np.asarray(CONTINUOUS.noise_to_signal(times[:-1]))
    for at in (int(np.argmin(np.abs(us - u))) for u in (0.1, 0.4, 1.0)):
        solve = functools.partial(sample, times=times[at:], step=rule)
        trip = jax.jit(functools.partial(denoising.round_trip, CONTINUOUS, denoise, solve))
        back = trip(jax.random.split(key, len(y)), y, jnp.float32(times[at]))
        found.append(float(jnp.mean((back - x0) ** 2)))
        wanted.append(expected(us[at], is_stochastic))
    np.testing.assert_allclose(found, wanted, rtol=0.03)
    assert wanted[2] > 1.5 * wanted[0]


def test_psnr_is_its_definition_and_ssim_falls_with_noise():
    clean = to_float(photos.photo_crops(6, 0, 16))
    shifted = clean + 0.02 * np.where(np.indices(clean.shape).sum(0) % 2, 1, -1)
    found = denoising.quality(shifted, clean)
    assert found["psnr"] == pytest.approx(20 * np.log10(2.0 / 0.02), abs=1e-3)
    noise = np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    ssims = [denoising.quality(clean + std * noise, clean)["ssim"] for std in (1e-6, 0.1, 0.4)]
    assert ssims[0] == pytest.approx(1.0, abs=1e-6)
    assert ssims[0] > ssims[1] > ssims[2]
    assert denoising.quality(shifted[:, :4], clean[:, :4]).keys() == {"psnr"}  # smaller than a window of SSIM


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_remove_noise(channels):
    clean = to_float(photos.photo_crops(6, 0, 32))[..., :channels]
    dirty = clean + 0.2 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    means = classical.nl_means(dirty)
    assert (means.shape, means.dtype) == (clean.shape, clean.dtype)
    assert denoising.quality(means, clean)["psnr"] > denoising.quality(dirty, clean)["psnr"] + 2.0
