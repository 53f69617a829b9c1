"""Drift and diffusion by autodiff, against score_sde's formulas and against the process itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact, sde
from tests.processes import ALL, CONTINUOUS

TIMES = jnp.array([0.1, 0.4, 0.9])


def _rates(name):
    return jax.vmap(lambda t: sde.rates(CONTINUOUS[name], t))(TIMES)


def test_rates_of_song_et_al():
    beta = 0.1 + TIMES * 19.9
    decay = np.exp(-2.0 * (0.1 * TIMES + 0.5 * TIMES**2 * 19.9))
    geometric = 0.01 * 5000.0**TIMES
    for name, drift, diffusion in [
        ("vp_linear", -0.5 * beta, beta),
        ("sub_vp", -0.5 * beta, beta * (1.0 - decay)),
        ("ve", 0.0 * beta, geometric**2 * 2.0 * np.log(5000.0)),
        ("edm", 0.0 * beta, 2.0 * 80.0**2 * TIMES),  # sigma(t) = t has g^2 = 2 t (EDM, table 1), in units of 80
    ]:
        rates = _rates(name)
        np.testing.assert_allclose(rates.drift, drift, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rates.diffusion_squared, diffusion, rtol=1e-3)


@pytest.mark.parametrize("name", ["vp_linear", "ve", "flow"])
def test_forward_sde_has_the_marginals(name):
    """The simulated state, from t = 0.02 on, has the variance alpha^2 s^2 + sigma^2."""
    schedule, times = CONTINUOUS[name], np.linspace(0.02, 0.7, 401, dtype=np.float32)
    keys = jax.random.split(jax.random.key(0), 401)

    def std(t):
        return jnp.hypot(0.5 * schedule.alpha(t), schedule.sigma(t))

    x = std(times[0]) * jax.random.normal(keys[-1], (20_000,))

    @jax.jit
    def run(x):
        def body(x, inputs):
            key, t, s = inputs
            rates = sde.rates(schedule, t)
            noise = jax.random.normal(key, x.shape)
            return x + (s - t) * rates.drift * x + jnp.sqrt((s - t) * rates.diffusion_squared) * noise, None  # Euler-Maruyama

        return jax.lax.scan(body, x, (keys[:-1], times[:-1], times[1:]))[0]

    assert np.std(run(x)) == pytest.approx(float(std(times[-1])), rel=0.03)


@pytest.mark.parametrize("name", ALL)
def test_ode_velocity_is_that_of_the_exact_flow(name):
    """For N(0, s^2) the flow multiplies x by the marginal's standard deviation: d log x / dt = d log std / dt."""
    schedule = ALL[name]
    denoise = exact.denoiser(exact.gaussian(np.zeros(1), np.array([[0.25]])), schedule)

    def std(t):
        return jnp.hypot(0.5 * schedule.alpha(t), schedule.sigma(t))

    for t in (0.1005, 0.4005, 0.9005):  # inside intervals of the grid
        t = jnp.float32(t)
        x = jnp.ones((1, 1))
        estimate = denoise(x, t[None])
        expected = jax.grad(lambda time: jnp.log(std(time)))(t)
        np.testing.assert_allclose(sde.velocity(schedule, estimate, t)[0, 0], expected, rtol=2e-3, atol=1e-4)
        rates, score = sde.rates(schedule, t), -estimate.eps / schedule.sigma(t)
        by_score = rates.drift * x - 0.5 * rates.diffusion_squared * score
        np.testing.assert_allclose(by_score[0, 0], expected, rtol=2e-3, atol=1e-4)
