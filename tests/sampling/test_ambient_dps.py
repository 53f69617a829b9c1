"""The step of A-DPS on Gaussian data, where the denoiser and the gradient are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.schedules import EDM, DDPMGrid
from advdiff_jax.sampling.ambient_dps import ambient_dps
from advdiff_jax.sampling.posterior import masked

MEAN, COVARIANCE = np.array([0.5, -0.3]), np.array([[1.0, 0.6], [0.6, 0.8]])
U, LOWER, ZETA = 0.7, 0.4, 0.3


@pytest.mark.parametrize("schedule", [DDPMGrid(), EDM()])
def test_the_step_is_eulers_and_follows_the_gradient_of_the_misfit(schedule):
    t, s = (schedule.time(jnp.float32(u)) for u in (U, LOWER))
    z, y, mask = np.array([1.1, -0.4]), np.array([0.2, 0.0]), np.array([True, False])
    rule = ambient_dps(schedule, masked(jnp.asarray(y)[None], jnp.asarray(mask), jnp.zeros(1)), ZETA)
    denoise = exact.denoiser(exact.gaussian(MEAN, COVARIANCE), schedule)
    found, _ = rule.update(denoise, None, (), schedule.alpha(t) * jnp.asarray(z, jnp.float32)[None], t, s)

    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + U**2 * np.eye(2))
    x0 = MEAN + gain @ (z - MEAN)
    residual = mask * (y - x0)
    expected = z + (LOWER - U) / U * (z - x0) + ZETA * gain.T @ residual / np.linalg.norm(residual)
    np.testing.assert_allclose(found[0] / schedule.alpha(s), expected, atol=1e-4)
