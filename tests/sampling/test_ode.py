"""The adaptive solver against the closed form of a Gaussian's flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact, sde
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.sampling import grids, ode
from advdiff_jax.sampling.sample import prior
from tests.processes import ALL


@pytest.mark.parametrize("name", ["vp_linear", "ve", "flow"])
def test_gaussian_flow(name):
    schedule = ALL[name]
    denoise = exact.denoiser(exact.gaussian(np.zeros(1), np.array([[0.25]])), schedule)
    x = prior(jax.random.split(jax.random.key(0), 20), (1,), schedule.prior_std)
    end = jax.jit(lambda x: ode.sample(schedule, denoise, x, 1e-5, 1e-5))(x)
    std = np.hypot(0.5 * schedule.alpha(jnp.float32(1.0)), schedule.sigma(jnp.float32(1.0)))
    np.testing.assert_allclose(end, 0.5 * x / std, atol=2e-3)


def test_the_path_follows_the_marginals():
    schedule, times = ALL["vp_linear"], grids.uniform(8)[:-1]

    def field(t, y):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = 0.25 * alpha**2 + sigma**2
        return sde.velocity(schedule, Denoised(0.25 * alpha * y / variance, sigma * y / variance), t)

    at = jax.jit(jax.vmap(lambda end: ode.solve(field, jnp.ones(1), 1.0, end, 1e-5, 1e-5)))
    states = at(jnp.asarray(times))
    std = np.hypot(0.5 * schedule.alpha(times), schedule.sigma(times))
    np.testing.assert_allclose(states[:, 0], std / std[0], atol=1e-3)
