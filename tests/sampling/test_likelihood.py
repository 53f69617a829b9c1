"""Log-likelihoods within 1 % of closed forms, by the exact divergence and by Hutchinson's estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.sampling import likelihood
from tests.processes import ALL


def _mean_nll(schedule, distribution, x, probes=1):
    keys = jax.random.split(jax.random.key(0), len(x))
    denoise = exact.denoiser(distribution, schedule)
    run = jax.jit(lambda x: likelihood.log_likelihood(schedule, denoise, keys, x, probes=probes))
    return -float(jnp.mean(run(jnp.asarray(x, jnp.float32))))


def _entropy(covariance):
    return 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * covariance)[1]


@pytest.mark.parametrize("name", ["vp_linear", "ddpm_grid", "edm", "flow"])
def test_gaussian_within_one_per_cent(name):
    covariance = np.array([[0.5, 0.2], [0.2, 0.3]])
    whitened = np.random.default_rng(0).standard_normal((20, 2))
    whitened = (whitened - whitened.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(whitened.T, bias=True))).T
    x = whitened @ np.linalg.cholesky(covariance).T  # exact moments, so that the mean NLL is the entropy
    found = _mean_nll(ALL[name], exact.gaussian(np.zeros(2), covariance), x)
    assert found == pytest.approx(_entropy(covariance), rel=0.01)


def test_mixture_within_one_per_cent():
    distribution = exact.mixture(np.array([0.3, 0.7]), np.array([[0.8], [-0.5]]), np.array([[[0.04]], [[0.1]]]))
    x = np.linspace(-1.2, 1.3, 20)[:, None]
    wanted = distribution.log_density(jnp.asarray(x, jnp.float32), jnp.ones(20), jnp.full(20, 1e-3))
    assert _mean_nll(ALL["vp_linear"], distribution, x) == pytest.approx(-float(jnp.mean(wanted)), rel=0.01)


def test_hutchinson_above_sixteen_dimensions():
    dim = likelihood.EXACT_DIMENSIONS + 4
    covariance = np.diag(np.linspace(0.1, 1.0, dim)) + 0.05
    x = np.random.default_rng(2).multivariate_normal(np.zeros(dim), covariance, 100)
    exact_nll = 0.5 * np.mean(np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)) + _entropy(covariance) - dim / 2
    found = _mean_nll(ALL["vp_linear"], exact.gaussian(np.zeros(dim), covariance), x, probes=4)
    assert found == pytest.approx(exact_nll, rel=0.01)


def test_bits_of_a_uniform_image():
    """The density 1/2 on [-1, 1] costs 8 bits a dimension in 256 cells of width 2 / 256."""
    log_p = jnp.array([3 * np.log(0.5)])
    np.testing.assert_allclose(likelihood.bits_per_dimension(log_p, 3, 2 / 256), 8.0, rtol=1e-6)
