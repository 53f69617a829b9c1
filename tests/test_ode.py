"""The adaptive solver against the closed form of a Gaussian's flow, in every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.sampling import grids, ode
from advdiff_jax.sampling.sample import prior
from tests.processes import ALL


@pytest.mark.parametrize("name", ["vp_linear", "ve", "flow"])
def test_gaussian_flow(name):
    schedule = ALL[name]
    law = exact.gaussian(np.zeros(1), np.array([[0.25]]))
    x = prior(jax.random.split(jax.random.key(0), 20), (1,), schedule.prior_std)
    end = jax.jit(lambda x: ode.sample(schedule, exact.denoiser(law, schedule), x, 1e-5, 1e-5))(x)
    std = np.hypot(0.5 * schedule.alpha(jnp.float32(1.0)), schedule.sigma(jnp.float32(1.0)))
    np.testing.assert_allclose(end, 0.5 * x / std, atol=2e-3)


def test_trajectory_follows_the_marginals():
    schedule, times = ALL["vp_linear"], grids.uniform(8)
    law = exact.gaussian(np.zeros(1), np.array([[0.25]]))
    x = jnp.ones((3, 1))
    denoise = exact.denoiser(law, schedule)
    states = jax.jit(lambda x: ode.sample(schedule, denoise, x, 1e-5, 1e-5, times))(x)
    std = np.hypot(0.5 * schedule.alpha(times), schedule.sigma(times))
    assert states.shape == (9, 3, 1)
    np.testing.assert_allclose(states[:, 0, 0], std / std[0], atol=2e-3)
