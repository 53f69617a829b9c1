"""GSURE: its minimiser in closed form, the loss written out, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, edm
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives import gsure
from tests.processes import ALL
from tests.slopes import best_matrix, linear, vertex

EPS = PARAMETERIZATIONS["eps"]
STD, NOISE, U = 0.3, 0.2, 0.4


def best_slope(schedule, parameterization, stein=None, n=50_000):
    """Finds the slope a of D = a y_u that minimises the objective at u on one-dimensional Gaussian data under noise."""
    keys, (data_key, noise_key) = jax.random.split(jax.random.key(0), n), jax.random.split(jax.random.key(1))
    y = STD * jax.random.normal(data_key, (n, 1)) + NOISE * jax.random.normal(noise_key, (n, 1))
    objective, t = gsure.gsure(schedule, parameterization, NOISE, stein), schedule.time(jnp.full((n,), U))
    return vertex(jax.jit(lambda slope: jnp.mean(objective(linear(schedule, parameterization, slope), keys, y, t)[0])))


@pytest.mark.parametrize(("process", "name"), [("ddpm_grid", "eps"), ("edm", "edm")])
def test_the_minimiser_is_the_clean_posterior_mean(process, name):
    found = best_slope(ALL[process], (PARAMETERIZATIONS | {"edm": edm(0.3)})[name])
    assert found == pytest.approx(STD**2 / (STD**2 + U**2), rel=0.03)
    assert found < 0.8 * (STD**2 + NOISE**2) / (STD**2 + U**2)  # the slope without the divergence, which keeps the noise


def test_the_published_coefficient_is_biased_as_its_closed_form():
    found = best_slope(ALL["ddpm_grid"], EPS, gsure.published(0.3))
    biased = STD**2 + NOISE**2 - 0.3 * U**2 / np.hypot(1.0, U)
    assert found == pytest.approx(biased / (STD**2 + U**2), rel=0.03)


def test_several_dimensions_have_the_matrix_of_the_clean_posterior_mean():
    covariance = np.array([[0.25, 0.15], [0.15, 0.16]])
    found = best_matrix(gsure.gsure(ALL["edm"], EPS, NOISE), ALL["edm"], EPS, U, covariance, NOISE)
    np.testing.assert_allclose(found, covariance @ np.linalg.inv(covariance + U**2 * np.eye(2)), rtol=0.03, atol=0.003)


def test_masks_leave_the_posterior_mean_of_what_is_known():
    """Row i of the best matrix, given that coordinate i is known: the other one is known with chance q, and else pure noise."""
    (a, r), (_, b) = covariance = np.array([[0.25, 0.15], [0.15, 0.16]])
    q, n = 0.6, 50_000
    mask = jax.random.uniform(jax.random.key(5), (n, 2)) < q
    objective = gsure.gsure(ALL["ddpm_grid"], EPS, NOISE)
    found = best_matrix(objective, ALL["ddpm_grid"], EPS, U, covariance, NOISE, n, mask=mask)
    rows = [np.linalg.solve([[own + U**2, q * r], [q * r, q * other + U**2]], [own, q * r]) for own, other in ((a, b), (b, a))]
    np.testing.assert_allclose(found, [rows[0], rows[1][::-1]], rtol=0.03, atol=0.005)


def test_the_divergence_is_that_of_the_exact_jacobian_where_it_is_diagonal():
    """A Rademacher probe has no variance for a diagonal Jacobian: the loss is the published VE form, times 1 / u^2 for eps."""
    schedule, n = ALL["edm"], 16
    keys, y = jax.random.split(jax.random.key(2), n), jax.random.normal(jax.random.key(3), (n, 3))
    network = lambda x, t: jnp.tanh(2.0 * x)
    loss, aux = gsure.gsure(schedule, EPS, NOISE)(network, keys, y, schedule.time(jnp.full((n,), U)))
    noise_keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)[:, 0]
    state = np.asarray(y) + np.sqrt(U**2 - NOISE**2) * np.stack([jax.random.normal(key, (3,)) for key in noise_keys])
    denoised = state - U * np.tanh(2.0 * state)
    divergence = np.mean(1.0 - 2.0 * U / np.cosh(2.0 * state) ** 2, axis=1)
    np.testing.assert_allclose(aux["divergence"], 2.0 * NOISE**2 * divergence / U**2, rtol=1e-3, atol=1e-4)
    expected = (np.mean((denoised - np.asarray(y)) ** 2, axis=1) + 2.0 * NOISE**2 * divergence) / U**2
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


def test_a_time_below_the_noise_is_drawn_again_and_a_process_below_it_has_no_loss():
    schedule, n, seen = ALL["ddpm_grid"], 64, {}

    def spy(x, t):
        seen["u"] = schedule.noise_to_signal(t)
        return 0.0 * x

    keys, y, t = jax.random.split(jax.random.key(4), n), jnp.ones((n, 2)), jnp.linspace(0.001, 1.0, n)
    for noise, usable in ((1.0, True), (1e6, False)):
        loss = gsure.gsure(schedule, EPS, noise)(spy, keys, y, t)[0]
        assert np.all(np.asarray(seen["u"]) >= noise) == usable
        assert np.all(np.isfinite(loss))
        assert np.all(loss == 0.0) != usable


@pytest.mark.parametrize("kwargs", [{"noise_std": -1.0}, {"noise_std": 0.1, "variance_loss": lambda *args: {}}])
def test_bad_arguments_are_refused(kwargs):
    with pytest.raises(InvalidArgument, match=r"noise_std >= 0|learn the variance"):
        gsure.gsure(ALL["edm"], EPS, **kwargs)
    with pytest.raises(InvalidArgument, match="stein_scale"):
        gsure.published(-1.0)
