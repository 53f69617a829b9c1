"""Step rules against published formulas, and the sampler against a distribution with a known score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior, sample

KEY = jax.random.key(0)
GRID = schedules.DDPMGrid()
BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.concatenate([[1.0], np.cumprod(1 - BETAS)])
MEAN, STD = 0.7, 0.3


def gaussian(x, t):
    """Denoises N(MEAN, STD^2) exactly."""
    alpha, sigma = schedules.bcast(GRID.alpha(t), x), schedules.bcast(GRID.sigma(t), x)
    x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
    return Denoised(x0, (x - alpha * x0) / sigma)


def one_step(rule, keys, x, t, s):
    return rule.update(gaussian, keys, rule.init(x), x, t, s)[0]


def noise_of(keys, x):
    return np.stack([jax.random.normal(key, x.shape[1:]) for key in keys])


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("i", [1, 2, 500, 1000])
def test_ancestral_step_is_ddpms(variance, i):
    """x_{i-1} = (x_i - beta_i / sqrt(1 - abar_i) eps) / sqrt(1 - beta_i) + std z (Ho et al. 2020, algorithm 2)."""
    x, keys = 2.0 * jax.random.normal(KEY, (6, 3)), jax.random.split(KEY, 6)
    found = one_step(steps.ancestral(GRID, variance), keys, x, jnp.float32(i / 1000), jnp.float32((i - 1) / 1000))
    eps = np.asarray(gaussian(x, jnp.full(6, i / 1000)).eps)
    beta = BETAS[i - 1]
    mean = (np.asarray(x) - beta / np.sqrt(1 - ABAR[i]) * eps) / np.sqrt(1 - beta)
    variances = {"large": beta if i > 1 else 0.0, "small": beta * (1 - ABAR[i - 1]) / (1 - ABAR[i])}
    np.testing.assert_allclose(found, mean + np.sqrt(variances[variance]) * noise_of(keys, x), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("i", "j"), [(1000, 900), (300, 250), (20, 0)])
def test_ddim_step_is_equation_12(eta, i, j):
    x, keys = jax.random.normal(KEY, (6, 3)), jax.random.split(KEY, 6)
    found = one_step(steps.ddim(GRID, eta), keys, x, jnp.float32(i / 1000), jnp.float32(j / 1000))
    eps = np.asarray(gaussian(x, jnp.full(6, i / 1000)).eps)
    x0 = (np.asarray(x) - np.sqrt(1 - ABAR[i]) * eps) / np.sqrt(ABAR[i])
    std = eta * np.sqrt((1 - ABAR[j]) / (1 - ABAR[i])) * np.sqrt(1 - ABAR[i] / ABAR[j])
    expected = np.sqrt(ABAR[j]) * x0 + np.sqrt(1 - ABAR[j] - std**2) * eps + std * noise_of(keys, x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("i", "j"), [(1000, 900), (300, 299), (20, 0)])
def test_ddim_with_eta_1_is_the_ancestral_step(i, j):
    x, keys = jax.random.normal(KEY, (6, 3)), jax.random.split(KEY, 6)
    t, s = jnp.float32(i / 1000), jnp.float32(j / 1000)
    np.testing.assert_allclose(
        one_step(steps.ddim(GRID, 1.0), keys, x, t, s), one_step(steps.ancestral(GRID), keys, x, t, s), rtol=1e-3, atol=2e-4
    )


@pytest.mark.parametrize(
    ("rule", "num_steps"),
    [
        (steps.ancestral(GRID), 1000),
        (steps.ancestral(GRID, "large"), 1000),
        (steps.ddim(GRID), 200),
        (steps.ddim(GRID, 1.0), 500),
    ],
)
def test_the_exact_score_gives_the_exact_distribution(rule, num_steps):
    n = 20_000
    keys = jax.random.split(jax.random.key(1), n)
    start = prior(jax.random.split(jax.random.key(2), n), (1,), GRID.prior_std)
    x = jax.jit(lambda: sample(gaussian, keys, start, grids.ddpm(num_steps, 1000), rule))()
    assert float(x.mean()) == pytest.approx(MEAN, abs=4 * STD / np.sqrt(n) + 1e-3)
    assert float(x.std()) == pytest.approx(STD, rel=4 / np.sqrt(2 * n) + 0.01)


def test_ddim_without_noise_ignores_its_keys():
    x = jax.random.normal(KEY, (4, 2))
    run = lambda seed: sample(gaussian, jax.random.split(jax.random.key(seed), 4), x, grids.ddpm(5, 1000), steps.ddim(GRID))
    np.testing.assert_array_equal(run(0), run(1))
