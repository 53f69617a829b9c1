"""Log-likelihoods against closed forms: within 1 % of a Gaussian's, exact divergence and Hutchinson's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.sampling import likelihood
from tests.processes import ALL


def _mean_nll(schedule, law, x, probes=1):
    keys = jax.random.split(jax.random.key(0), len(x))
    run = jax.jit(lambda x: likelihood.log_likelihood(schedule, exact.denoiser(law, schedule), keys, x, probes=probes))
    return -float(jnp.mean(run(jnp.asarray(x, jnp.float32))))


def _entropy(covariance):
    return 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * covariance)[1]


@pytest.mark.parametrize("name", ["vp_linear", "ddpm_grid", "edm", "flow"])
def test_gaussian_within_one_per_cent(name):
    covariance = np.array([[0.5, 0.2], [0.2, 0.3]])
    whitened = np.random.default_rng(0).standard_normal((200, 2))
    whitened = (whitened - whitened.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(whitened.T, bias=True))).T
    x = whitened @ np.linalg.cholesky(covariance).T  # moments exact, so that the mean NLL is the entropy
    found = _mean_nll(ALL[name], exact.gaussian(np.zeros(2), covariance), x)
    assert found == pytest.approx(_entropy(covariance), rel=0.01)


def test_mixture_within_one_per_cent():
    law = exact.mixture(np.array([0.3, 0.7]), np.array([[0.8], [-0.5]]), np.array([[[0.04]], [[0.1]]]))
    x = np.random.default_rng(1).choice([0.8, -0.5], (100, 1), p=[0.3, 0.7]) + 0.2
    wanted = law.log_density(jnp.asarray(x, jnp.float32), jnp.ones(100), jnp.full(100, 1e-3))
    assert _mean_nll(ALL["vp_linear"], law, x) == pytest.approx(-float(jnp.mean(wanted)), rel=0.01)


def test_hutchinson_above_sixteen_dimensions():
    dim = likelihood.EXACT_DIMENSIONS + 4
    covariance = np.diag(np.linspace(0.1, 1.0, dim)) + 0.05
    x = np.random.default_rng(2).multivariate_normal(np.zeros(dim), covariance, 100)
    exact_nll = 0.5 * np.mean(np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)) + _entropy(covariance) - dim / 2
    found = _mean_nll(ALL["vp_linear"], exact.gaussian(np.zeros(dim), covariance), x, probes=4)
    assert found == pytest.approx(exact_nll, rel=0.01)


def test_bits_of_a_uniform_picture():
    """256 equal levels on [-1, 1] cost 8 bits a dimension, but for the width of the last level."""
    log_p = jnp.array([3 * np.log(0.5)])
    np.testing.assert_allclose(likelihood.bits_per_dimension(log_p, 3, 2 / 256), 8.0, rtol=1e-6)
