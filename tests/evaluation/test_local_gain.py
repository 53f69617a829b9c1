"""The largest local gain by power iteration, against singular values and the closed form of a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact
from advdiff_jax.evaluation import local_gain
from tests.processes import ALL

KEYS = jax.random.split(jax.random.key(0), 5)


def test_it_is_the_largest_singular_value_of_each_examples_jacobian():
    matrix = jax.random.normal(jax.random.key(1), (4, 4))
    function = lambda x: jnp.tanh(x @ matrix.T)
    x = jax.random.normal(jax.random.key(2), (5, 4))
    found = jax.jit(lambda: local_gain.top_singular_values(function, KEYS, x, 200))()
    expected = [np.linalg.norm(jax.jacfwd(function)(one), 2) for one in x]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    few = local_gain.top_singular_values(function, KEYS, x, 1)
    assert np.all(few <= 1.0001 * np.asarray(expected))


def test_of_images_and_of_a_function_without_gain():
    x = jax.random.normal(jax.random.key(2), (5, 2, 3, 1))
    np.testing.assert_allclose(local_gain.top_singular_values(lambda x: 3.0 * x, KEYS, x, 2), 3.0, rtol=1e-5)
    np.testing.assert_array_equal(local_gain.top_singular_values(lambda x: 0.0 * x, KEYS, x, 2), 0.0)


@pytest.mark.parametrize("process", ["vp_linear", "ve"])
def test_of_the_exact_gaussian_denoiser_it_is_the_closed_form(process):
    """alpha s^2 / (alpha^2 s^2 + sigma^2) for the largest s."""
    schedule = ALL[process]
    denoise = exact.denoiser(exact.gaussian(np.zeros(3), np.diag([0.5, 0.1, 0.01]) ** 2), schedule)
    find = jax.jit(lambda t: local_gain.local_gain(schedule, denoise, KEYS, jnp.ones((5, 3)), t, 60))
    for t in (0.1, 0.6):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        expected = alpha * 0.5**2 / (alpha**2 * 0.5**2 + sigma**2)
        np.testing.assert_allclose(find(jnp.float32(t)), expected, rtol=1e-3)
