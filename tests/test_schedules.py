"""Schedules against DDPM's own products of betas, and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules

ALL = [
    schedules.VPLinear(),
    schedules.VPCosine(),
    schedules.DDPMGrid(),
    schedules.DDPMGrid(continuous=schedules.VPCosine()),
]


@pytest.mark.parametrize("betas", [np.linspace(1e-4, 0.02, 1000), np.linspace(4e-4, 0.08, 250)])
def test_linear_grid_is_ddpms(betas):
    """abar_i of the published recurrence, at every i; T = 250 has DDPM's betas times four."""
    grid = schedules.DDPMGrid(num_steps=len(betas))
    t = jnp.arange(1, len(betas) + 1) / len(betas)
    abar = np.cumprod(1.0 - betas)
    np.testing.assert_allclose(grid.alpha(t) ** 2, abar, rtol=2e-5)
    np.testing.assert_allclose(grid.sigma(t) ** 2, 1.0 - abar, rtol=2e-5)


def test_cosine_grid_is_improved_ddpms():
    def abar_bar(t):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    i = np.arange(1000)
    betas = np.minimum(1 - abar_bar((i + 1) / 1000) / abar_bar(i / 1000), 0.999)
    grid = schedules.DDPMGrid(continuous=schedules.VPCosine())
    np.testing.assert_allclose(grid.alpha(jnp.asarray((i + 1) / 1000)) ** 2, np.cumprod(1 - betas), rtol=1e-4)


@pytest.mark.parametrize("schedule", ALL)
def test_variance_preserving_and_monotone(schedule):
    t = jnp.linspace(0.0, 1.0, 2001)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1.0, atol=1e-6)
    assert schedule.alpha(t)[0] == 1.0
    assert np.all(np.diff(schedule.log_snr(t)[1:]) <= 0)
    expected = np.log(schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)
    np.testing.assert_allclose(schedule.log_snr(t)[1:], expected[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jnp.exp(-0.5 * schedule.log_snr(t)[1:]), schedule.noise_to_signal(t)[1:], rtol=1e-4)


def test_continuous_and_grid_agree_as_the_grid_refines():
    t = jnp.linspace(0.1, 1.0, 10)
    fine = schedules.DDPMGrid(num_steps=100_000)
    np.testing.assert_allclose(fine.alpha(t), schedules.VPLinear().alpha(t), rtol=2e-3)


def test_beta_follows_by_autodiff():
    """-2 d log alpha / dt is beta(t): linear for VP-linear, and T beta_i inside interval i of the grid."""
    beta = jax.vmap(jax.grad(lambda t: -2.0 * schedules.VPLinear().log_alpha(t)))(jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(beta, [0.1, 10.05, 20.0], rtol=1e-5)
    middle_of_interval_500 = 499.5 / 1000
    slope = jax.grad(lambda t: -2.0 * schedules.DDPMGrid().log_alpha(t))(middle_of_interval_500)
    np.testing.assert_allclose(slope, -1000 * np.log1p(-np.linspace(1e-4, 0.02, 1000)[499]), rtol=1e-3)


def test_training_times_cover_the_grid_evenly():
    times = schedules.DDPMGrid(num_steps=4).training_time(jnp.array([0.0, 0.249, 0.25, 0.6, 0.999]))
    np.testing.assert_allclose(times, [0.25, 0.25, 0.5, 0.75, 1.0])
    assert schedules.VPLinear(t_min=0.01).training_time(jnp.array(0.0)) == pytest.approx(0.01)


@pytest.mark.parametrize("schedule", [schedules.SubVP(), schedules.VE(), schedules.EDM(), schedules.RectifiedFlow()])
def test_the_clock_of_the_vp_process_is_that_of_the_same_noise_to_signal(schedule):
    t = schedule.time(jnp.array([0.05, 0.3, 2.0, 20.0]))
    there = schedules.VPLinear().noise_to_signal(schedule.vp_time(t))
    np.testing.assert_allclose(there, schedule.noise_to_signal(t), rtol=1e-3)


def test_a_vp_process_has_its_own_clock():
    t = jnp.linspace(0.0, 1.0, 5)
    for schedule in (schedules.VPLinear(), schedules.VPCosine(), schedules.DDPMGrid()):
        np.testing.assert_array_equal(schedule.vp_time(t), t)
