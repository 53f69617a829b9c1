"""Parameterisations: round trips in every process, the shift that keeps x0hat, EDM's preconditioning, and network inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser, edm, inputs, split_variance
from advdiff_jax.diffusion.schedules import DDPMGrid, VPLinear
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import denoising
from tests.processes import ALL

KEYS = jax.random.split(jax.random.key(0), 6)
X0, EPS = jax.random.normal(KEYS[0], (6, 3)), jax.random.normal(KEYS[1], (6, 3))
EVERY = PARAMETERIZATIONS | {"edm": edm(0.5)}


def noise(schedule):
    """Draws x_t at six noise levels from 0.05 to 5: t [6], x_t, alpha and sigma."""
    t = schedule.time(jnp.geomspace(0.05, 5.0, 6))
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    return t, alpha * X0 + sigma * EPS, alpha, sigma


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("process", ALL)
def test_invert_undoes_target(name, process):
    _, x, alpha, sigma = noise(ALL[process])
    x0, eps, _ = EVERY[name].invert(EVERY[name].target(X0, EPS, alpha, sigma), x, alpha, sigma)
    np.testing.assert_allclose(x0, X0, atol=2e-4)
    np.testing.assert_allclose(eps, EPS, atol=2e-4)


@pytest.mark.parametrize("name", EVERY)
def test_shifting_the_prediction_by_target_of_w_keeps_x0(name):
    """Equivariance of eps_th is invariance of x0hat."""
    _, x, alpha, sigma = noise(ALL["vp_linear"])
    delta = 0.1 * sigma * jax.random.normal(KEYS[2], X0.shape)
    shift = EVERY[name].target(0 * X0, delta / sigma, alpha, sigma)
    moved = EVERY[name].target(X0, EPS, alpha, sigma) + shift
    np.testing.assert_allclose(EVERY[name].invert(moved, x + delta, alpha, sigma).x0, X0, atol=2e-4)


def test_score_is_the_gradient_of_the_log_density():
    _, x, alpha, sigma = noise(ALL["vp_linear"])
    log_density = lambda x: jnp.sum(-((x - alpha * X0) ** 2) / (2 * sigma**2))
    score = PARAMETERIZATIONS["score"].target(X0, EPS, alpha, sigma)
    np.testing.assert_allclose(score, jax.grad(log_density)(x), rtol=1e-3, atol=1e-4)


def test_clipping_moves_eps_with_x0():
    t, x, alpha, sigma = noise(ALL["vp_linear"])
    clipped = denoiser(ALL["vp_linear"], PARAMETERIZATIONS["eps"], lambda x, t: EPS, clip=0.5)(x, t)
    np.testing.assert_allclose(clipped.x0, jnp.clip(X0, -0.5, 0.5), atol=1e-4)
    np.testing.assert_allclose(alpha * clipped.x0 + sigma * clipped.eps, x, atol=1e-5)


def test_edm_is_table_1():
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), and the loss on F is their lambda(sigma) || D - x0 ||^2."""
    schedule, std = ALL["edm"], 0.5
    sigma = jnp.array([0.01, 0.1, 0.5, 2.0, 10.0, 80.0])
    t = sigma / 80.0
    x = X0 + sigma[:, None] * EPS
    skip, out = std**2 / (sigma**2 + std**2), sigma * std / np.sqrt(sigma**2 + std**2)
    state, time = inputs(schedule, edm(std), "log_noise")(x, t)
    np.testing.assert_allclose(state, x / np.sqrt(sigma**2 + std**2)[:, None], rtol=1e-5)
    np.testing.assert_allclose(time, np.log(sigma) / 4.0, rtol=1e-4)
    found = denoiser(schedule, edm(std), lambda x, t: jnp.sin(x))(x, t).x0
    np.testing.assert_allclose(found, skip[:, None] * x + out[:, None] * np.sin(x), rtol=1e-4, atol=1e-5)

    loss, _ = denoising(schedule, edm(std))(lambda x, t: 0.0 * x, KEYS, X0, t)
    weight = (sigma**2 + std**2) / (sigma * std) ** 2  # their lambda(sigma)
    noised = X0 + sigma[:, None] * jax.vmap(lambda key: jax.random.normal(key, (3,)))(KEYS)
    np.testing.assert_allclose(loss, weight * np.mean((skip[:, None] * noised - X0) ** 2, axis=1), rtol=1e-3)


def test_inputs_of_a_vp_process_are_unchanged():
    t = jnp.linspace(0.1, 1.0, 6)
    state, time = inputs(ALL["ddpm_grid"], PARAMETERIZATIONS["eps"])(X0, t)
    np.testing.assert_array_equal(state, X0)
    np.testing.assert_array_equal(time, t)


def test_the_network_sees_ddpms_time_step():
    """DDPM's code counts from 0: its x_t with the noise of beta_1 has t = 0, the last t = 999."""
    schedule = DDPMGrid(continuous=VPLinear(), num_steps=1000, t_min=1e-3)
    n = jnp.array([1, 2, 500, 1000])
    _, feature = inputs(schedule, PARAMETERIZATIONS["eps"], "step")(jnp.zeros((4, 1)), n / 1000)
    np.testing.assert_allclose(1000.0 * feature, n - 1, atol=1e-3)


def test_a_learnt_variance_is_split_off_and_clipping_keeps_it():
    prediction = jnp.arange(12.0).reshape(1, 12)
    mean, variance = split_variance(prediction, jnp.zeros((1, 6)))
    np.testing.assert_array_equal(jnp.concatenate([mean, variance], axis=1), prediction)
    assert split_variance(mean, mean)[1] is None
    estimate = denoiser(ALL["vp_linear"], PARAMETERIZATIONS["x0"], lambda x, t: prediction, clip=1.0)(
        jnp.zeros((1, 6)), jnp.array([0.5])
    )
    np.testing.assert_array_equal(estimate.variance, variance)
    np.testing.assert_array_equal(estimate.x0, [[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])


def test_edm_refuses_a_data_std_that_is_not_positive():
    with pytest.raises(InvalidArgument, match=r"data_std=0\.0 must be positive"):
        edm(0.0)
