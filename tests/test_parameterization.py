"""eps, x0, v and score: round trips, and the shift that leaves x0hat where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser

KEY = jax.random.key(0)
SCHEDULE = schedules.VPLinear()


def draw():
    x0, eps = jax.random.normal(KEY, (2, 16, 5))
    t = jnp.linspace(0.2, 0.9, 16)
    alpha, sigma = schedules.bcast(SCHEDULE.alpha(t), x0), schedules.bcast(SCHEDULE.sigma(t), x0)
    return x0, eps, t, alpha, sigma


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_invert_undoes_target(name):
    x0, eps, t, alpha, sigma = draw()
    parameterization = PARAMETERIZATIONS[name]
    x = schedules.diffuse(SCHEDULE, x0, eps, t)
    found = parameterization.invert(parameterization.target(x0, eps, alpha, sigma), x, alpha, sigma)
    np.testing.assert_allclose(found.x0, x0, atol=2e-4)
    np.testing.assert_allclose(found.eps, eps, atol=2e-4)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_moving_the_prediction_by_target_of_w_keeps_x0(name):
    """Equivariance of eps_th is invariance of x0hat."""
    x0, eps, t, alpha, sigma = draw()
    delta = 0.1 * jax.random.normal(jax.random.key(1), x0.shape)
    parameterization = PARAMETERIZATIONS[name]
    x = schedules.diffuse(SCHEDULE, x0, eps, t)
    moved = parameterization.target(x0, eps, alpha, sigma) + parameterization.target(0 * x0, delta / sigma, alpha, sigma)
    np.testing.assert_allclose(parameterization.invert(moved, x + delta, alpha, sigma).x0, x0, atol=2e-4)


def test_score_is_the_gradient_of_the_log_density():
    x0, eps, t, alpha, sigma = draw()
    x = schedules.diffuse(SCHEDULE, x0, eps, t)
    log_density = lambda x: jnp.sum(-((x - alpha * x0) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(
        PARAMETERIZATIONS["score"].target(x0, eps, alpha, sigma), jax.grad(log_density)(x), rtol=1e-3, atol=1e-4
    )


def test_clipping_moves_eps_with_x0():
    x0, eps, t, alpha, sigma = draw()
    x = schedules.diffuse(SCHEDULE, x0, eps, t)
    clipped = denoiser(SCHEDULE, PARAMETERIZATIONS["eps"], lambda x, t: eps, clip=0.5)(x, t)
    np.testing.assert_allclose(clipped.x0, jnp.clip(x0, -0.5, 0.5), atol=1e-4)
    np.testing.assert_allclose(alpha * clipped.x0 + sigma * clipped.eps, x, atol=1e-5)
