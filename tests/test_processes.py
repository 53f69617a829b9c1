"""The processes beyond VP: their published formulas, and what all processes have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from tests.processes import ALL, CONTINUOUS

T = jnp.linspace(0.02, 0.98, 25)


def test_sub_vp_has_less_noise_than_vp():
    vp, sub = CONTINUOUS["vp_linear"], CONTINUOUS["sub_vp"]
    np.testing.assert_allclose(sub.alpha(T), vp.alpha(T))
    np.testing.assert_allclose(sub.sigma(T), 1.0 - np.exp(-(0.1 * T + 0.5 * T**2 * 19.9)), rtol=1e-5)
    assert np.all(sub.sigma(T) < vp.sigma(T))


def test_ve_is_the_variance_added_since_zero():
    geometric = 0.01 * 5000.0 ** np.asarray(T, np.float64)
    np.testing.assert_allclose(CONTINUOUS["ve"].sigma(T) ** 2, geometric**2 - 0.01**2, rtol=1e-4)


def test_prior_has_the_variance_of_the_noise():
    """x_1 is alpha x0 + sigma eps with nearly no signal: its standard deviation is the prior's; 50 for VE, not 1."""
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


@pytest.mark.parametrize("name", ALL)
def test_time_inverts_noise_to_signal(name):
    np.testing.assert_allclose(ALL[name].time(ALL[name].noise_to_signal(T)), T, rtol=1e-4)


def test_time_of_an_unreachable_level_is_the_nearest():
    np.testing.assert_allclose(schedules.VPLinear().time(jnp.array([0.0, 1e9])), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_scale_carries_to_the_variance_preserving_process(name):
    process = ALL[name]
    u, scale = process.noise_to_signal(T), process.scale(T)
    np.testing.assert_allclose(process.alpha(T) / scale, 1.0 / np.sqrt(1.0 + u**2), rtol=1e-5)
    np.testing.assert_allclose(process.sigma(T) / scale, u / np.sqrt(1.0 + u**2), rtol=1e-5)


def test_edm_trains_on_a_log_normal_and_stays_finite_at_the_ends():
    edm = CONTINUOUS["edm"]
    draws = np.log(edm.sigma(edm.training_time(jax.random.uniform(jax.random.key(0), (20_000,)))))
    np.testing.assert_allclose([draws.mean(), draws.std()], [-1.2, 1.2], atol=0.03)
    assert edm.t_min == pytest.approx(0.002 / 80.0)
    np.testing.assert_allclose(edm.training_time(jnp.array([0.0, 1.0])), [edm.t_min, 1.0])
