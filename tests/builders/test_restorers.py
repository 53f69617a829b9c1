"""Restorers under the exact denoiser of Gaussian images, where posterior mean and covariance are known."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.restorers import Prior, Problem, build_restorer, chosen, unclipped
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


@pytest.mark.parametrize(("method", "name"), [("moments", "folder"), ("moments", "blur"), ("sdedit", "noise")])
def test_draws_have_the_posterior_s_mean_and_variance(method, name):
    config = config_of(method=method, operator=name, draws=1, steps=50, cg_steps=DIM)
    problem, mean, covariance = problem_of(name)
    found = build_restorer(config, method, prior_of(config))(problem)[0].reshape(COUNT, DIM)
    assert np.linalg.norm(found.mean(0) - mean) < 0.03 * np.linalg.norm(mean)
    assert np.trace(np.cov(found.T)) == pytest.approx(np.trace(covariance), rel=0.03)
    scale = np.sqrt(np.diag(covariance))
    assert np.abs(np.cov(found.T) - covariance).max() < 0.1 * scale.max() ** 2


def test_a_model_that_learnt_nothing_below_a_level_restores_from_there():
    problem, *_ = problem_of("noise")
    config, least = config_of(method="sdedit", draws=1, steps=2), 0.5
    found = build_restorer(config, "sdedit", prior_of(config)._replace(least=least))(problem)[0].reshape(COUNT, DIM)
    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + least**2 * np.eye(DIM))
    np.testing.assert_allclose(found.mean(0), MEAN + gain @ (problem.y[0].reshape(DIM) - MEAN), atol=0.03)
    spread = gain @ gain.T * (least**2 - NOISE**2)  # of the noise that was added
    assert np.trace(np.cov(found.T)) == pytest.approx(np.trace(spread), rel=0.05)


def test_one_step_is_the_posterior_mean():
    problem, mean, _ = problem_of("noise")
    found = build_restorer(config_of(method="one_step"), "one_step", prior_of(config_of()))(problem)
    np.testing.assert_allclose(found[0].reshape(COUNT, DIM), np.tile(mean, (COUNT, 1)), atol=0.001)


def test_the_final_step_is_the_posterior_mean_of_a_model_of_noisy_data():
    """Here the data of the model are the noisy ones, so what lies behind them has their covariance less the noise's."""
    config = config_of(method="final")
    clean = COVARIANCE - 0.2**2 * np.eye(DIM)
    problem, *_ = problem_of("noise")
    std, level = 0.2, 0.1
    found = build_restorer(config, "final", prior_of(config))(problem._replace(std=np.full(COUNT, std, np.float32)))[0]
    shrink = clean @ np.linalg.inv(clean + (std**2 + level**2) * np.eye(DIM))
    expected = MEAN + shrink @ (problem.y[0].reshape(DIM) - MEAN)
    np.testing.assert_allclose(found.reshape(COUNT, DIM).mean(0), expected, atol=0.01)


def test_a_method_that_does_not_take_the_operator_is_refused():
    with pytest.raises(
        UserError, match=r"config\.restore\.method='wavelet' does not take config\.restore\.operator='blur': set "
    ):
        chosen(config_of(method="wavelet", operator="blur"))
    assert chosen(config_of()) == ["moments", "nl_means", "wavelet"]
    assert chosen(config_of(operator="blur", beside=("dps",))) == ["moments", "dps"]
    with pytest.raises(InvalidArgument, match="is for models that are given a mask"):
        build_restorer(config_of(method="a_dps"), "a_dps", prior_of(config_of()))


def test_clipped_noise_of_black_and_white_images_is_gaussian_again():
    clean = jnp.tile(jnp.array([-1.0, 1.0, 0.0]), (20_000, 1))
    keys = jax.random.split(jax.random.key(0), 20_000)
    y = jnp.clip(clean + NOISE * jax.random.normal(jax.random.key(1), clean.shape), -1.0, 1.0)
    noise = np.asarray(unclipped(keys, y, jnp.full(20_000, NOISE)) - clean)
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.01)
    np.testing.assert_allclose(noise.std(0), NOISE, rtol=0.02)
    assert np.mean(noise[:, 0] ** 3) == pytest.approx(0.0, abs=0.1 * NOISE**3)  # not skewed; clipped noise is
