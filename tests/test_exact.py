"""Closed-form laws: Tweedie's formula, autodiff of the density, Monte Carlo and numerical integration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from tests.processes import ALL

BASIS = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])
MEANS = np.array([[0.5, -0.3, 0.2], [-1.0, 0.4, 0.0], [0.1, 0.9, -0.6]])
COVARIANCES = np.stack([np.diag([0.3, 0.05, 0.2]), 0.1 * np.eye(3) + 0.05, 0.02 * np.eye(3)])
LAWS = {
    "gaussian": exact.gaussian(MEANS[0], COVARIANCES[1]),
    "mixture": exact.mixture(np.array([0.2, 0.5, 0.3]), MEANS, COVARIANCES),
    "gaussian_on_plane": exact.gaussian_on_plane(BASIS, 0.6),
    "noisy_gaussian_on_plane": exact.gaussian_on_plane(BASIS, 0.6, 0.1),
    "uniform_on_plane": exact.uniform_on_plane(BASIS, 1.0),
    "noisy_uniform_on_plane": exact.uniform_on_plane(BASIS, 1.0, 0.1),
}


def _draw(name, rng, n):
    plane = {"gaussian_on_plane": (0.0, None), "noisy_gaussian_on_plane": (0.1, None)}
    square = {"uniform_on_plane": 0.0, "noisy_uniform_on_plane": 0.1}
    if name == "gaussian":
        return rng.multivariate_normal(MEANS[0], COVARIANCES[1], n)
    if name == "mixture":
        which = rng.choice(3, size=n, p=[0.2, 0.5, 0.3])
        return MEANS[which] + np.einsum("nij,nj->ni", np.linalg.cholesky(COVARIANCES)[which], rng.standard_normal((n, 3)))
    if name in plane:
        return 0.6 * rng.standard_normal((n, 2)) @ BASIS + plane[name][0] * rng.standard_normal((n, 3))
    return rng.uniform(-1.0, 1.0, (n, 2)) @ BASIS + square[name] * rng.standard_normal((n, 3))


@functools.cache
def _by_autodiff(name):
    """(x, alpha, sigma) of one example -> x0, eps, covariance; the score and the Jacobian of x0hat by autodiff."""
    law = LAWS[name]

    def one(x, alpha, sigma):
        def at(function):
            return lambda x: function(x[None], alpha[None], sigma[None])

        x0, eps, _ = at(law.denoise)(x)
        score = jax.grad(lambda x: at(law.log_density)(x)[0])(x)
        return x0[0], eps[0], at(law.covariance)(x)[0], score, jax.jacfwd(lambda x: at(law.denoise)(x).x0[0])(x)

    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.05), (0.8, 0.6), (0.05, 1.0), (1.0, 30.0)])
def test_tweedie_ties_score_mean_and_covariance(name, alpha, sigma):
    """alpha x0 + sigma eps = x; eps = -sigma grad log p; d x0hat / dx = alpha / sigma^2 Cov."""
    n, rng = 40, np.random.default_rng(0)
    x = jnp.asarray(alpha * _draw(name, rng, n) + sigma * rng.standard_normal((n, 3)), jnp.float32)
    x0, eps, covariance, score, jacobian = _by_autodiff(name)(x, jnp.full((n,), alpha), jnp.full((n,), sigma))
    np.testing.assert_allclose(alpha * x0 + sigma * eps, x, atol=2e-5 * max(1.0, sigma))
    np.testing.assert_allclose(-sigma * score, eps, atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(jacobian * sigma**2 / alpha, covariance, atol=3e-3 * min(1.0, sigma))


@pytest.mark.parametrize("name", LAWS)
def test_mean_and_covariance_by_importance_sampling(name):
    """E and Cov of x0 given one x_t, from draws of x0 weighted by p(x_t | x0)."""
    law, rng = LAWS[name], np.random.default_rng(1)
    alpha, sigma = 0.8, 0.5
    x0 = _draw(name, rng, 400_000)
    x = alpha * x0[0] + sigma * rng.standard_normal(3)
    likelihood = np.exp(-0.5 * np.sum((x - alpha * x0) ** 2, axis=1) / sigma**2)
    weights = likelihood / likelihood.sum()
    mean = weights @ x0
    covariance = (weights[:, None] * (x0 - mean)).T @ (x0 - mean)
    density = likelihood.mean() / (2.0 * np.pi * sigma**2) ** 1.5
    at = jnp.asarray(x[None], jnp.float32), jnp.array([alpha]), jnp.array([sigma])
    found = jax.jit(lambda *at: (law.denoise(*at).x0[0], law.covariance(*at)[0], law.log_density(*at)[0]))(*at)
    np.testing.assert_allclose(found[0], mean, atol=6e-3)
    np.testing.assert_allclose(found[1], covariance, atol=6e-3)
    np.testing.assert_allclose(found[2], np.log(density), atol=0.02)


def test_uniform_is_continuous_between_its_two_formulas_and_far_away():
    """The truncated Gaussian by quadrature and by distribution functions agree where one hands over to the other."""
    law = exact.uniform_on_plane(np.array([[1.0, 0.0]]), 1.0)
    x = jnp.stack([jnp.linspace(-4.0, 4.0, 81), jnp.zeros(81)], axis=1)
    estimate = jax.jit(lambda x, sigma: law.denoise(x, jnp.ones(81), jnp.full(81, sigma)).x0[:, 0])
    np.testing.assert_allclose(estimate(x, 0.50001), estimate(x, 0.49999), atol=2e-4)
    np.testing.assert_allclose(np.asarray(estimate(50.0 * x, 0.01))[[0, -1]], [-1.0, 1.0], atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_any_process_gives_the_same_estimate_at_the_same_noise_level(name):
    process, y = ALL[name], jnp.asarray(np.random.default_rng(2).standard_normal((8, 3)), jnp.float32)
    t = process.time(jnp.full((8,), 0.5))
    found = exact.denoiser(LAWS["mixture"], process)(process.alpha(t)[:, None] * y, t)
    wanted = LAWS["mixture"].denoise(y, jnp.ones(8), jnp.full(8, 0.5))
    np.testing.assert_allclose(found.x0, wanted.x0, atol=1e-4)
    np.testing.assert_allclose(found.eps, wanted.eps, atol=3e-4)


def test_weights_that_are_no_distribution_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        exact.mixture(np.array([0.5, 0.6]), MEANS[:2], COVARIANCES[:2])
