"""Closed-form distributions: Tweedie's formula, autodiff of the density, Monte Carlo and numerical integration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.errors import InvalidArgument
from tests.processes import ALL

BASIS = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])
MEANS = np.array([[0.5, -0.3, 0.2], [-1.0, 0.4, 0.0], [0.1, 0.9, -0.6]])
COVARIANCES = np.stack([np.diag([0.3, 0.05, 0.2]), 0.1 * np.eye(3) + 0.05, 0.02 * np.eye(3)])
ON_PLANE = 0.6**2 * BASIS.T @ BASIS  # singular
DISTRIBUTIONS = {
    "gaussian": exact.gaussian(MEANS[0], COVARIANCES[1]),
    "mixture": exact.mixture(np.array([0.2, 0.5, 0.3]), MEANS, COVARIANCES),
    "gaussian_on_plane": exact.gaussian(np.zeros(3), ON_PLANE),
    "noisy_gaussian_on_plane": exact.gaussian(np.zeros(3), ON_PLANE + 0.1**2 * np.eye(3)),
    "uniform_on_plane": exact.uniform_on_plane(BASIS, 1.0),
    "noisy_uniform_on_plane": exact.uniform_on_plane(BASIS, 1.0, 0.1),
}


def _draw(name, rng, n):
    if name == "gaussian":
        return rng.multivariate_normal(MEANS[0], COVARIANCES[1], n)
    if name == "mixture":
        which = rng.choice(3, size=n, p=[0.2, 0.5, 0.3])
        return MEANS[which] + np.einsum("nij,nj->ni", np.linalg.cholesky(COVARIANCES)[which], rng.standard_normal((n, 3)))
    on_plane = rng.uniform(-1.0, 1.0, (n, 2)) if "uniform" in name else 0.6 * rng.standard_normal((n, 2))
    return on_plane @ BASIS + ("noisy" in name) * 0.1 * rng.standard_normal((n, 3))


@functools.cache
def _by_autodiff(name):
    """Builds (x, alpha, sigma) -> x0, eps, covariance, and by autodiff the score and the Jacobian of x0hat."""
    distribution = DISTRIBUTIONS[name]

    def one(x, alpha, sigma):
        def at(function):
            return lambda x: function(x[None], alpha[None], sigma[None])

        x0, eps, _ = at(distribution.denoise)(x)
        score = jax.grad(lambda x: at(distribution.log_density)(x)[0])(x)
        jacobian = jax.jacfwd(lambda x: at(distribution.denoise)(x).x0[0])(x)
        return x0[0], eps[0], at(distribution.covariance)(x)[0], score, jacobian

    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.05), (0.8, 0.6), (0.05, 1.0), (1.0, 30.0)])
def test_tweedie_relates_score_mean_and_covariance(name, alpha, sigma):
    """alpha x0 + sigma eps = x; eps = -sigma grad log p; d x0hat / dx = alpha / sigma^2 Cov."""
    n, rng = 40, np.random.default_rng(0)
    x = jnp.asarray(alpha * _draw(name, rng, n) + sigma * rng.standard_normal((n, 3)), jnp.float32)
    x0, eps, covariance, score, jacobian = _by_autodiff(name)(x, jnp.full((n,), alpha), jnp.full((n,), sigma))
    np.testing.assert_allclose(alpha * x0 + sigma * eps, x, atol=2e-5 * max(1.0, sigma))
    np.testing.assert_allclose(-sigma * score, eps, atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(jacobian * sigma**2 / alpha, covariance, atol=3e-3 * min(1.0, sigma))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_and_covariance_by_importance_sampling(name):
    """E and Cov of x0 given x_t are those of draws of x0 with weights p(x_t | x0)."""
    distribution, rng = DISTRIBUTIONS[name], np.random.default_rng(1)
    alpha, sigma = 0.8, 0.5
    x0 = _draw(name, rng, 400_000)
    x = alpha * x0[0] + sigma * rng.standard_normal(3)
    likelihood = np.exp(-0.5 * np.sum((x - alpha * x0) ** 2, axis=1) / sigma**2)
    weights = likelihood / likelihood.sum()
    mean = weights @ x0
    covariance = (weights[:, None] * (x0 - mean)).T @ (x0 - mean)
    density = likelihood.mean() / (2.0 * np.pi * sigma**2) ** 1.5
    at = jnp.asarray(x[None], jnp.float32), jnp.array([alpha]), jnp.array([sigma])
    found = jax.jit(lambda *at: (distribution.denoise(*at).x0, distribution.covariance(*at), distribution.log_density(*at)))(
        *at
    )
    np.testing.assert_allclose(found[0][0], mean, atol=6e-3)
    np.testing.assert_allclose(found[1][0], covariance, atol=6e-3)
    np.testing.assert_allclose(found[2][0], np.log(density), atol=0.02)


def test_uniform_is_continuous_between_its_two_formulas_and_far_away():
    """Quadrature and distribution functions give the same truncated Gaussian at the width where they switch."""
    distribution = exact.uniform_on_plane(np.array([[1.0, 0.0]]), 1.0)
    x = jnp.stack([jnp.linspace(-4.0, 4.0, 81), jnp.zeros(81)], axis=1)
    estimate = jax.jit(lambda x, sigma: distribution.denoise(x, jnp.ones(81), jnp.full(81, sigma)).x0[:, 0])
    np.testing.assert_allclose(estimate(x, 0.50001), estimate(x, 0.49999), atol=2e-4)
    np.testing.assert_allclose(np.asarray(estimate(50.0 * x, 0.01))[[0, -1]], [-1.0, 1.0], atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_any_process_gives_the_same_estimate_at_the_same_noise_level(name):
    process, y = ALL[name], jnp.asarray(np.random.default_rng(2).standard_normal((8, 3)), jnp.float32)
    t = process.time(jnp.full((8,), 0.5))
    found = exact.denoiser(DISTRIBUTIONS["mixture"], process)(process.alpha(t)[:, None] * y, t)
    wanted = DISTRIBUTIONS["mixture"].denoise(y, jnp.ones(8), jnp.full(8, 0.5))
    np.testing.assert_allclose(found.x0, wanted.x0, atol=1e-4)
    np.testing.assert_allclose(found.eps, wanted.eps, atol=3e-4)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.0, 0.0]])
def test_weights_of_a_mixture_must_be_positive_and_sum_to_1(weights):
    with pytest.raises(InvalidArgument, match=rf"weights=\[{weights[0]}, {weights[1]}\] must be positive and sum to 1"):
        exact.mixture(np.array(weights), MEANS[:2], COVARIANCES[:2])
