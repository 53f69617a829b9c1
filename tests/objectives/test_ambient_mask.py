"""Ambient diffusion with masks: the hidden coordinate in closed form, and what the network sees and is judged on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser, edm
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.ambient_mask import ambient_mask, given_mask, keep
from tests.processes import ALL
from tests.slopes import vertex

PREDICTIONS = PARAMETERIZATIONS | {"edm": edm(0.3)}
CORRELATION, U = 0.8, 0.6


@pytest.mark.parametrize(
    ("process", "name", "coordinate"), [("ddpm_grid", "eps", 0), ("ddpm_grid", "eps", 1), ("edm", "edm", 1)]
)
def test_the_best_estimates_from_one_coordinate_of_two(process, name, coordinate):
    """Of unit variances and correlation r: x0hat_1 = y_1 / (1 + u^2), and of the hidden one x0hat_2 = r y_1 / (1 + u^2)."""
    schedule, parameterization, n = ALL[process], PREDICTIONS[name], 40_000
    x = jax.random.normal(jax.random.key(0), (n, 2))
    x = x.at[:, 1].set(CORRELATION * x[:, 0] + np.sqrt(1.0 - CORRELATION**2) * x[:, 1])
    keys, t = jax.random.split(jax.random.key(1), n), schedule.time(jnp.full((n,), U))
    objective = ambient_mask(schedule, parameterization, further=0.5)

    def loss(slope):
        def predict(given, t):
            state, seen = given[:, :2], given[:, 2:] > 0
            alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
            x0hat = slope * state[:, :1] / alpha
            first = parameterization.target(x0hat, (state[:, :1] - alpha * x0hat) / sigma, alpha, sigma)
            found = jnp.concatenate([first, x0hat], axis=1) * (jnp.arange(2) == coordinate)
            return jnp.where(seen[:, :1] & ~seen[:, 1:], found, 0.0)  # the others do not depend on the slope

        return jnp.mean(objective(predict, keys, x, t, jnp.ones((n, 2), bool))[0])

    expected = (1.0, CORRELATION)[coordinate] / (1.0 + U**2)
    assert vertex(jax.jit(loss)) == pytest.approx(expected, rel=0.03)


def images(n=64):
    keys = jax.random.split(jax.random.key(2), n)
    mask = jax.random.uniform(jax.random.key(3), (n, 4, 4, 1)) < 0.7
    return keys, jax.random.normal(jax.random.key(4), (n, 4, 4, 3)), jnp.linspace(0.01, 1.0, n), mask


def test_the_network_sees_and_is_judged_on_known_pixels_alone():
    schedule, (keys, y, t, mask), seen = ALL["ddpm_grid"], images(), {}

    def spy(x, t):
        seen["x"], seen["mask"] = x[..., :3], x[..., 3:]
        return jnp.sin(x[..., :3])

    objective = ambient_mask(schedule, PREDICTIONS["eps"], further=0.2)
    loss = objective(spy, keys, y, t, mask)[0]
    np.testing.assert_array_equal(objective(spy, keys, jnp.where(mask, y, 99.0), t, mask)[0], loss)
    assert np.all(seen["mask"] <= mask)
    assert float(np.mean(seen["mask"])) == pytest.approx(0.8 * float(np.mean(mask)), abs=0.03)
    np.testing.assert_array_equal(seen["x"] != 0.0, np.broadcast_to(seen["mask"], y.shape) == 1.0)
    whole = objective(spy, keys, y, t, jnp.ones_like(mask))[0]
    assert np.all(whole > loss)  # a mean over all dimensions


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_prediction_given_a_mask_is_an_ordinary_one(name):
    """Its x0hat is the network's own on hidden pixels, and that of the parameterisation on the others."""
    schedule, (_, x, t, mask) = ALL["ddpm_grid"], images()
    network = lambda given, t: 0.5 * given[..., :3] + given[..., 3:] + 0.1
    found = denoiser(schedule, PREDICTIONS[name], given_mask(schedule, PREDICTIONS[name], network, mask))(x, t).x0
    plain = denoiser(schedule, PREDICTIONS[name], lambda x, t: 0.5 * x + 1.1)(x, t).x0
    np.testing.assert_allclose(found, jnp.where(mask, plain, 0.1), rtol=2e-3, atol=2e-3)
    one = given_mask(schedule, PREDICTIONS[name], network, mask[:1])(x, t)
    assert one.shape == x.shape


def test_a_pixel_is_kept_with_its_chance_and_masks_only_shrink():
    keys, _, _, mask = images(2000)
    kept = keep(keys, mask, 0.3)
    assert not np.any(kept & ~mask)
    assert np.sum(kept) / np.sum(mask) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("kwargs", [{"further": 0.0}, {"further": 1.0}, {"variance_loss": lambda *args: {}}])
def test_bad_arguments_are_refused(kwargs):
    with pytest.raises(InvalidArgument, match=r"further=.* out of range|learn the variance"):
        ambient_mask(ALL["edm"], PREDICTIONS["eps"], **kwargs)
