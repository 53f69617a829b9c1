"""Restorers under the exact denoiser of Gaussian images, where posterior mean and covariance are known."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.restorers import Prior, Problem, build_restorer, chosen
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion import exact
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.modes import MODES
from advdiff_jax.sampling import operators
from configs import digits

SIDE, NOISE, COUNT = 3, 0.3, 2000
SHAPE, DIM = (SIDE, SIDE, 1), SIDE * SIDE
RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((DIM, DIM)) / 3.0
MEAN, COVARIANCE = RNG.uniform(-0.5, 0.5, DIM), ROOT @ ROOT.T + 0.05 * np.eye(DIM)
MASK = np.array([1, 0, 1, 1, 1, 0, 0, 1, 1], bool).reshape(SHAPE)
OPERATORS = {
    "noise": operators.identity(),
    "folder": operators.masked(jnp.asarray(MASK)[None]),
    "blur": operators.blurred(np.array([[0.1, 0.2, 0.1], [0.2, 0.4, 0.2], [0.1, 0.2, 0.1]]), SHAPE),
}


def config_of(**values) -> ml_collections.ConfigDict:
    config = digits.get_config("ddpm")
    config.update_from_flattened_dict({f"restore.{key}": value for key, value in values.items()})
    config.sampling.batch_size = COUNT
    return resolve(config, [], MODES, "restore")


def prior_of(config):
    process = build_process(config)
    denoise = exact.denoiser(exact.gaussian(MEAN, COVARIANCE), process.schedule)

    def predict(params, x, t):
        return denoise(x.reshape(len(x), DIM), t).eps.reshape(x.shape)

    return Prior(process, predict, {})


def problem_of(name):
    """One measurement, as often as there are draws of it, and the exact posterior's mean and covariance."""
    operator = OPERATORS[name]
    matrix = np.asarray(operator.forward(jnp.eye(DIM).reshape(DIM, *SHAPE)).reshape(DIM, DIM)).T
    truth = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE)
    y = matrix @ truth + NOISE * np.random.default_rng(2).standard_normal(DIM)
    y = np.where(np.any(matrix, axis=1), y, 0.0)  # a hidden pixel is 0
    gain = COVARIANCE @ matrix.T @ np.linalg.inv(matrix @ COVARIANCE @ matrix.T + NOISE**2 * np.eye(DIM))
    ys = np.tile(y.astype(np.float32).reshape(SHAPE), (COUNT, 1, 1, 1))
    problem = Problem(ys, np.full(COUNT, NOISE, np.float32), None, lambda mask: operator)
    return problem, MEAN + gain @ (y - matrix @ MEAN), COVARIANCE - gain @ matrix @ COVARIANCE


@functools.cache
def draws(method, name):
    config = config_of(method=method, operator=name, draws=1, steps=80, cg_steps=DIM)
    problem, mean, covariance = problem_of(name)
    return build_restorer(config, method, prior_of(config))(problem)[0].reshape(COUNT, DIM), mean, covariance


@pytest.mark.parametrize(("method", "name"), [("moments", "noise"), ("moments", "folder"), ("moments", "blur"), ("sdedit", "noise")])
def test_draws_have_the_posterior_s_mean_and_variance(method, name):
    found, mean, covariance = draws(method, name)
    assert np.linalg.norm(found.mean(0) - mean) < 0.03 * np.linalg.norm(mean)
    assert np.trace(np.cov(found.T)) == pytest.approx(np.trace(covariance), rel=0.03)
    scale = np.sqrt(np.diag(covariance))
    assert np.abs(np.cov(found.T) - covariance).max() < 0.1 * scale.max() ** 2
