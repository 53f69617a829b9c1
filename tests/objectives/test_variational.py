"""The learnt variance: its optimum is the true variance of the reverse step, and it leaves the mean alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact, schedules
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.transition import learnt_log_variance, posterior
from advdiff_jax.objectives.denoising import add_noise, denoising
from advdiff_jax.objectives.variational import _decoder, variational

GRID = schedules.DDPMGrid(num_steps=50, t_min=0.02)
EPS = PARAMETERIZATIONS["eps"]


@pytest.mark.parametrize("step", [5, 20, 45])
def test_the_optimum_is_the_reverse_variance(step):
    """For N(0, s^2) data, Var[x_s | x_t] = small + on_x0^2 Var[x0 | x_t]: the raw output that minimises L_vlb gives it."""
    n, std = 50_000, 0.5
    distribution = exact.gaussian(np.zeros(1), np.array([[std**2]]))
    t = jnp.full((n,), step / 50)
    x0 = std * jax.random.normal(jax.random.key(0), (n, 1))
    noised = add_noise(GRID, EPS, jax.random.split(jax.random.key(1), n), x0, t)
    prediction = exact.denoiser(distribution, GRID)(noised.x, t).eps
    term = jax.jit(lambda raw: jnp.mean(variational(GRID, EPS, 50)(prediction, raw, noised, x0, t)["variational"]))
    candidates = np.linspace(-1.5, 1.5, 301)
    best = candidates[np.argmin([term(jnp.full((n, 1), raw)) for raw in candidates])]
    _, on_x0, small, large = posterior(GRID, t[0], t[0] - 1 / 50)
    alpha, sigma = GRID.alpha(t[0]), GRID.sigma(t[0])
    wanted = small + on_x0**2 * std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
    np.testing.assert_allclose(np.exp(learnt_log_variance(best, small, large)), wanted, rtol=0.02)


def test_its_gradient_does_not_reach_the_mean():
    x0, t = jnp.ones((4, 2)), jnp.array([0.02, 0.3, 0.6, 1.0])
    keys = jax.random.split(jax.random.key(0), 4)

    def loss(mean, raw, with_variance):
        def predict(x, t):
            return jnp.concatenate([mean * x, raw * jnp.ones_like(x)], axis=-1)

        extra = (variational(GRID, EPS, 50, weight=1.0),) if with_variance else ()
        return jnp.sum(denoising(GRID, EPS, *extra)(predict, keys, x0, t)[0])

    with_term, without = (jax.grad(loss, argnums=(0, 1))(0.3, 0.1, flag) for flag in (True, False))
    np.testing.assert_allclose(with_term[0], without[0], rtol=1e-6)
    assert without[1] == 0.0
    assert abs(with_term[1]) > 1e-3


def test_the_probabilities_of_all_levels_sum_to_one():
    levels = jnp.linspace(-1.0, 1.0, 16)
    for mean, log_var in [(0.1, -3.0), (-1.2, -4.0), (0.9, 0.5)]:
        assert float(jnp.sum(jnp.exp(-_decoder(levels, mean, log_var, 16)))) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kwargs", [{"weight": -1.0}, {"bins": 1}])
def test_bad_arguments_are_refused(kwargs):
    with pytest.raises(ValueError, match="need weight >= 0, and bins=0 or bins >= 2"):
        variational(GRID, EPS, 50, **kwargs)
