"""Ambient's consistency term: its value and its minimiser in closed form, what it leaves alone, and its cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.ambient import ambient
from advdiff_jax.objectives.consistency import consistency
from advdiff_jax.objectives.times import time_above, time_below
from configs import plane3d
from tests.processes import ALL

STD, NOISE, MARGIN, N = 0.3, 0.2, 0.05, 20_000
LEVEL = (1.0 + MARGIN) * NOISE


def posterior_means(schedule, parameterization, variance, seen=lambda t: None):
    """Builds the predictor of Gaussian data: the right one from LEVEL up, and that of another variance below."""

    def predict(x, t):
        seen(t)
        alpha, sigma, u = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None], schedule.noise_to_signal(t)[:, None]
        assumed = jnp.where(u > 0.999 * LEVEL, STD**2, variance)
        x0 = assumed / (assumed + u**2) * x / alpha
        return parameterization.target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return predict


def noisy(dim=1):
    x = STD * jax.random.normal(jax.random.key(0), (N, dim)) + NOISE * jax.random.normal(jax.random.key(1), (N, dim))
    return jax.random.split(jax.random.key(2), N), x, jnp.full((N,), NOISE)


@pytest.mark.parametrize(("process", "name"), [("edm", "eps"), ("vp_linear", "x0")])
def test_the_minimiser_below_the_noise_is_the_clean_posterior_mean(process, name):
    """However far the step goes: on Gaussian data the mean of the ancestral step is exact."""
    schedule, parameterization = ALL[process], PARAMETERIZATIONS[name]
    term = consistency(schedule, parameterization, MARGIN)
    loss = lambda variance: jnp.mean(term(posterior_means(schedule, parameterization, variance), *noisy()))
    slope = jax.jit(jax.grad(loss))
    found = optimize.brentq(lambda variance: float(slope(variance)), 0.03, 0.3, xtol=1e-4)
    assert found == pytest.approx(STD**2, rel=0.03)


def test_its_mean_is_the_squared_drift_of_the_estimate():
    """E[D(x') | x] - D(x) = (a' rho - a) y with rho = u'^2 / u^2 + (1 - u'^2 / u^2) a, for a wrong variance below the noise."""
    schedule, parameterization, ends, wrong = ALL["edm"], PARAMETERIZATIONS["eps"], [], 0.01
    predict = posterior_means(schedule, parameterization, wrong, lambda t: ends.append(schedule.noise_to_signal(t)))
    found = consistency(schedule, parameterization, MARGIN)(predict, *noisy())
    start, end, same = (np.asarray(level) for level in ends)  # one evaluation where it starts, two where it ends
    np.testing.assert_array_equal(end, same)
    np.testing.assert_allclose(start, LEVEL, rtol=1e-4)
    assert np.all(end <= LEVEL)
    a, below = STD**2 / (STD**2 + LEVEL**2), wrong / (wrong + end**2)
    rho = (end / LEVEL) ** 2 + (1.0 - (end / LEVEL) ** 2) * a
    assert np.mean(found) == pytest.approx(np.mean((below * rho - a) ** 2) * (STD**2 + LEVEL**2), rel=0.03)


def test_clean_examples_and_the_denoising_term_are_left_alone():
    schedule, parameterization = ALL["ddpm_grid"], PARAMETERIZATIONS["eps"]
    keys, x, std = (value[:64] for value in noisy(3))
    std, t = std.at[:32].set(0.0), jnp.linspace(0.01, 1.0, 64)
    network = lambda x, t: jnp.tanh(2.0 * x) * t[:, None]
    plain, _ = ambient(schedule, parameterization)(network, keys, x, t, std)
    loss, aux = ambient(schedule, parameterization, consistency_weight=2.0)(network, keys, x, t, std)
    np.testing.assert_array_equal(aux["denoising"], plain)
    np.testing.assert_allclose(loss, plain + aux["consistency"], rtol=1e-6)
    np.testing.assert_array_equal(aux["consistency"][:32], 0.0)
    assert np.all(aux["consistency"][32:] != 0.0)
    with pytest.raises(InvalidArgument, match="consistency >= 0"):
        ambient(schedule, parameterization, consistency_weight=-1.0)


@pytest.mark.parametrize("process", ["ddpm_grid", "edm"])
def test_times_on_one_side_of_a_level_are_those_of_training_there(process):
    schedule, v = ALL[process], (jnp.arange(4000) + 0.5) / 4000
    every = np.asarray(schedule.training_time(v))
    u = np.asarray(schedule.noise_to_signal(jnp.asarray(every)))
    for draw, chosen in ((time_above, u > 0.5), (time_below, u <= 0.5)):
        found = np.asarray(draw(schedule, jnp.full(4000, 0.5), v))
        np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(every[chosen], [0.1, 0.5, 0.9]), atol=0.003)


def test_the_term_costs_three_evaluations_and_lets_the_sampler_go_below_the_noise():
    config = plane3d.get_config("ambient_guess")
    spec = objective_spec(config)
    assert (spec.cost(config), spec.lowest_noise(config) > 0.1) == (3.0, True)
    config.baselines.consistency = 1.0
    assert (spec.cost(config), spec.lowest_noise(config)) == (12.0, 0.0)
