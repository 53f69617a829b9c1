"""Schedules against DDPM's own products of betas, against published formulas, and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from tests.processes import ALL, CONTINUOUS

T = jnp.linspace(0.02, 0.98, 25)
COSINE_GRID = schedules.DDPMGrid(continuous=schedules.VPCosine())
VP = [schedules.VPLinear(), schedules.VPCosine(), schedules.DDPMGrid(), COSINE_GRID]


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
    np.testing.assert_allclose(COSINE_GRID.alpha(jnp.asarray((i + 1) / 1000)) ** 2, np.cumprod(1 - betas), rtol=1e-4)


def test_sub_vp_has_less_noise_than_vp():
    vp, sub = CONTINUOUS["vp_linear"], CONTINUOUS["sub_vp"]
    np.testing.assert_allclose(sub.alpha(T), vp.alpha(T))
    np.testing.assert_allclose(sub.sigma(T), 1.0 - np.exp(-(0.1 * T + 0.5 * T**2 * 19.9)), rtol=1e-5)
    assert np.all(sub.sigma(T) < vp.sigma(T))


def test_ve_is_the_variance_added_since_zero():
    geometric = 0.01 * 5000.0 ** np.asarray(T, np.float64)
    np.testing.assert_allclose(CONTINUOUS["ve"].sigma(T) ** 2, geometric**2 - 0.01**2, rtol=1e-4)


def test_prior_has_the_variance_of_the_noise():
    """x_1 is alpha x0 + sigma eps with almost no signal, so its standard deviation is the prior's; 50 for VE, not 1."""
    assert {name: process.prior_std for name, process in CONTINUOUS.items()} == {
        "vp_linear": 1.0, "vp_cosine": 1.0, "sub_vp": 1.0, "ve": 50.0, "edm": 80.0, "flow": 1.0
    }  # fmt: skip
    for process in ALL.values():
        assert process.sigma(jnp.float32(1.0)) == pytest.approx(process.prior_std, rel=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_starts_at_the_data_and_only_gets_noisier(name):
    process = ALL[name]
    assert process.alpha(jnp.float32(0.0)) == 1.0
    assert process.sigma(jnp.float32(0.0)) == 0.0
    assert np.all(np.diff(process.noise_to_signal(jnp.linspace(0.0, 1.0, 1001))) >= 0.0)


@pytest.mark.parametrize("schedule", VP)
def test_variance_preserving_and_monotone(schedule):
    t = jnp.linspace(0.0, 1.0, 2001)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1.0, atol=1e-6)
    assert np.all(np.diff(schedule.log_snr(t)[1:]) <= 0)
    expected = np.log(schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)
    np.testing.assert_allclose(schedule.log_snr(t)[1:], expected[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jnp.exp(-0.5 * schedule.log_snr(t)[1:]), schedule.noise_to_signal(t)[1:], rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_scale_converts_to_the_variance_preserving_process(name):
    process = ALL[name]
    u, scale = process.noise_to_signal(T), process.scale(T)
    np.testing.assert_allclose(process.alpha(T) / scale, 1.0 / np.sqrt(1.0 + u**2), rtol=1e-5)
    np.testing.assert_allclose(process.sigma(T) / scale, u / np.sqrt(1.0 + u**2), rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_time_inverts_noise_to_signal(name):
    np.testing.assert_allclose(ALL[name].time(ALL[name].noise_to_signal(T)), T, rtol=1e-4)


def test_time_of_an_unreachable_level_is_clipped():
    np.testing.assert_allclose(schedules.VPLinear().time(jnp.array([0.0, 1e9])), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("schedule", [schedules.SubVP(), schedules.VE(), schedules.EDM(), schedules.RectifiedFlow()])
def test_vp_time_has_the_same_noise_to_signal(schedule):
    t = schedule.time(jnp.array([0.05, 0.3, 2.0, 20.0]))
    there = schedules.VPLinear().noise_to_signal(schedule.vp_time(t))
    np.testing.assert_allclose(there, schedule.noise_to_signal(t), rtol=1e-3)


def test_vp_time_of_a_vp_process_is_its_own():
    t = jnp.linspace(0.0, 1.0, 5)
    for schedule in VP:
        np.testing.assert_array_equal(schedule.vp_time(t), t)


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


def test_edm_trains_on_a_log_normal_and_stays_finite_at_the_ends():
    edm = CONTINUOUS["edm"]
    draws = np.log(edm.sigma(edm.training_time(jax.random.uniform(jax.random.key(0), (20_000,)))))
    np.testing.assert_allclose([draws.mean(), draws.std()], [-1.2, 1.2], atol=0.03)
    assert edm.t_min == pytest.approx(0.002 / 80.0)
    np.testing.assert_allclose(edm.training_time(jnp.array([0.0, 1.0])), [edm.t_min, 1.0])
