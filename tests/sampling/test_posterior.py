"""Samples given a measurement, on Gaussian data, where the posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import rng
from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import EDM, DDPMGrid
from advdiff_jax.sampling import grids, posterior, steps
from advdiff_jax.sampling.sample import sample

MEAN = np.array([0.5, -0.3, 0.2])
COVARIANCE = np.array([[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.3]])
MASK = np.array([True, False, True])
NOISE = 0.3
KEY = jax.random.key(0)
SCHEDULES = {"vp": DDPMGrid(), "edm": EDM()}


def gaussian(schedule):
    return exact.denoiser(exact.gaussian(MEAN, COVARIANCE), schedule)


def conditioned(covariance, noise, matrix, mean, y):
    """Returns mean and covariance of x ~ N(mean, covariance) given y = matrix x + noise n, in float64."""
    gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + noise**2 * np.eye(len(matrix)))
    return mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance


@pytest.mark.parametrize("name", SCHEDULES)
def test_moments_are_those_of_the_posterior_at_every_level(name):
    schedule, y = SCHEDULES[name], np.array([1.0, 0.0, -0.4])
    t = schedule.time(jnp.array([0.05, 0.4, 3.0]))
    z = np.array([[0.4, -0.2, 0.1], [1.0, 0.5, -0.7], [-2.0, 3.0, 1.0]])
    measured = posterior.masked(jnp.full((3, 3), y), jnp.asarray(MASK), jnp.full(3, NOISE))
    denoise = jax.jit(posterior.moments(schedule, gaussian(schedule), measured, cg_steps=3))
    found = denoise(schedule.alpha(t)[:, None] * z, t)
    for row, u in enumerate(np.asarray(schedule.noise_to_signal(t), np.float64)):
        mean, covariance = conditioned(COVARIANCE, NOISE, np.eye(3)[MASK], MEAN, y[MASK])
        expected, _ = conditioned(covariance, u, np.eye(3), mean, z[row])  # the noise of z says nothing of that of y
        np.testing.assert_allclose(found.x0[row], expected, atol=2e-4)
        np.testing.assert_allclose(found.eps[row] * u, z[row] - expected, atol=1e-3)


def test_draws_by_moments_have_the_posterior_s_mean_and_covariance():
    """The sampler is a linear map here, so that a few starts of exact mean 0 and covariance 1 show what all would."""
    schedule, count, y = SCHEDULES["edm"], 32, np.array([1.0, 0.0, -0.4])
    measured = posterior.masked(jnp.full((count, 3), y), jnp.asarray(MASK), jnp.full(count, NOISE))
    columns = np.linalg.qr(np.append(np.ones((count, 1)), np.random.default_rng(0).standard_normal((count, 3)), axis=1))[0]
    mean, covariance = conditioned(COVARIANCE, NOISE, np.eye(3)[MASK], MEAN, y[MASK])
    starts = jnp.asarray(mean + schedule.prior_std * np.sqrt(count) * columns[:, 1:], jnp.float32)

    @jax.jit
    def draw(x):
        denoise, keys = posterior.moments(schedule, gaussian(schedule), measured, cg_steps=3), jax.random.split(KEY, count)
        return sample(denoise, keys, x, grids.edm(60, schedule), steps.edm(schedule))

    found = np.asarray(draw(starts), np.float64)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.mean(0) / scale, mean / scale, atol=0.01)
    scales = np.outer(scale, scale)
    np.testing.assert_allclose(np.cov(found.T, bias=True) / scales, covariance / scales, atol=0.01)


def test_any_linear_operator_serves():
    """A sum of coordinates, of another shape than x: the adjoint is found by transposing it."""
    schedule, matrix = SCHEDULES["edm"], np.array([[1.0, 1.0, 1.0], [0.0, 1.0, -1.0]])
    t, z, y = schedule.time(jnp.array([0.7])), jnp.array([[0.1, 0.2, 0.3]]), jnp.array([[0.9, -0.2]])
    measured = posterior.Measurement(y, lambda x: x @ jnp.asarray(matrix.T, jnp.float32), jnp.array([NOISE]))
    found = posterior.moments(schedule, gaussian(schedule), measured, cg_steps=2)(z, t).x0[0]
    mean, covariance = conditioned(COVARIANCE, NOISE, matrix, MEAN, np.asarray(y[0]))
    np.testing.assert_allclose(found, conditioned(covariance, 0.7, np.eye(3), mean, np.asarray(z[0]))[0], atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_dps_moves_along_the_gradient_of_the_misfit(name):
    schedule, y, zeta = SCHEDULES[name], np.array([1.0, 0.0, -0.4]), 0.7
    t, s = (schedule.time(jnp.asarray(u)) for u in (0.7, 0.5))
    x = schedule.alpha(t) * jnp.array([[0.1, 0.2, 0.3]])
    measured = posterior.masked(jnp.asarray(y)[None], jnp.asarray(MASK), jnp.zeros(1))
    rule = steps.ddim(schedule)
    plain, _ = rule.update(gaussian(schedule), None, (), x, t, s)
    moved, _ = posterior.dps(schedule, rule, measured, zeta).update(gaussian(schedule), None, (), x, t, s)

    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + 0.7**2 * np.eye(3))  # D = MEAN + gain (z - MEAN)
    residual = MASK * (y - MEAN - gain @ (np.asarray(x[0] / schedule.alpha(t)) - MEAN))
    gradient = -gain.T @ residual / np.linalg.norm(residual) * np.sqrt(1.0 + 0.7**2)  # by x_vp = z / sqrt(1 + u^2)
    np.testing.assert_allclose((plain - moved)[0] / schedule.scale(s), zeta * gradient, rtol=1e-4)


SIGNAL, DIRT = np.array([0.0, 0.1, 0.3, 1.0]), 0.2  # S of four directions, and s: the data are noise alone in the first


def of_std(rule):
    """Returns `rule` on the standard deviation of a state instead of the state, for a linear denoiser.

    There x_s = g x + c n with the n that the rule draws, so that std_s^2 = g^2 std^2 + c^2, exactly.
    """

    def update(denoise, keys, carry, std, t, s):
        ends, _ = rule.update(denoise, keys, carry, jnp.zeros_like(std), t, s)
        moved, _ = rule.update(denoise, keys, carry, jnp.ones_like(std), t, s)
        return jnp.hypot((moved - ends) * std, ends / rng.normal(keys, std)), carry

    return steps.Step(rule.init, update)


def ten_laps(rule, num_steps):
    """Returns the variance of a Gaussian model [11, 4] after each lap of EM, from the model of the dirty data on."""
    schedule, dirty = EDM(), jnp.asarray(np.sqrt(SIGNAL**2 + DIRT**2), jnp.float32)[None]

    @jax.jit
    def lap(model, key):
        def denoise(x, t):
            u2 = schedule.sigma(t)[:, None] ** 2
            x0 = model**2 / (model**2 + u2) * x
            return Denoised(x0, (x - x0) / jnp.sqrt(u2))

        return posterior.from_level(schedule, denoise, key[None], dirty, jnp.array([DIRT]), of_std(rule), num_steps, 3.0)

    found = [dirty]
    for _ in range(10):
        found.append(lap(found[-1], KEY))
    return np.concatenate(found) ** 2


def recursion(lap):
    found = [SIGNAL**2 + DIRT**2]
    for _ in range(10):
        found.append(lap(found[-1]))
    return np.asarray(found)


def test_ten_laps_of_stochastic_em_follow_the_closed_form():
    def lap(v):
        gain = v / (v + DIRT**2)
        return gain**2 * (SIGNAL**2 + DIRT**2) + v * DIRT**2 / (v + DIRT**2)

    np.testing.assert_allclose(ten_laps(steps.ancestral(EDM()), 1000), recursion(lap), rtol=0.03)


def test_ten_laps_of_ode_em_follow_the_closed_form():
    found = ten_laps(steps.edm(EDM()), 40)
    np.testing.assert_allclose(found, recursion(lambda v: (SIGNAL**2 + DIRT**2) * v / (v + DIRT**2)), rtol=0.03)
    np.testing.assert_allclose(np.sqrt(found[10, 0]) / DIRT, 1.0 / np.sqrt(11.0), rtol=0.03)  # 1 / sqrt(k + 1)


def test_examples_keep_their_own_levels():
    """A batch of mixed levels equals one at a time; an example without noise comes back as it is."""
    schedule, level = SCHEDULES["vp"], jnp.array([0.0, 0.1, 0.5])
    z, keys = jax.random.normal(jax.random.key(0), (3, 3)), jax.random.split(jax.random.key(1), 3)

    def draw(keys, z, level):
        rule = steps.ancestral(schedule)
        return posterior.from_level(schedule, gaussian(schedule), keys, z, level, rule, 5, 7.0)

    together = draw(keys, z, level)
    alone = jnp.concatenate([draw(keys[i, None], z[i, None], level[i, None]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_array_equal(together[0], z[0])
    assert jnp.min(jnp.abs(together[1:] - z[1:])) > 0.0
