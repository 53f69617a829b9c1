"""Purification of Gaussian data shrinks a shift by its two closed factors, and the attack is the worst one of a linear case."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from advdiff_jax.evaluation import purification
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.sampling import steps
from advdiff_jax.sampling.shifted import Path
from tests.processes import independent_gaussians

SCHEDULE, SPREAD, U = schedules.VPLinear(), 0.5, 0.4
TIMES = np.asarray([*SCHEDULE.time(jnp.geomspace(U, 1e-3, 150)), 0.0], np.float32)
RULES = {"ddpm": steps.ancestral(SCHEDULE), "ddim": steps.ddim(SCHEDULE)}
FACTORS = {"ddpm": SPREAD**2 / (SPREAD**2 + U**2), "ddim": SPREAD / np.sqrt(SPREAD**2 + U**2)}


@functools.cache
def purify(rule):
    path = Path(independent_gaussians(SCHEDULE, SPREAD**2), RULES[rule], TIMES)
    return jax.jit(functools.partial(purification.purify, SCHEDULE, path))


@pytest.mark.parametrize("rule", RULES)
def test_a_shift_is_multiplied_by_the_factor_of_the_process(rule):
    keys = jax.random.split(jax.random.key(0), 4)
    x = SPREAD * jax.random.normal(jax.random.key(1), (4, 3))
    shift = jnp.array([1.0, -0.5, 0.2])
    moved = purify(rule)(keys, x + shift) - purify(rule)(keys, x)
    np.testing.assert_allclose(moved, np.tile(FACTORS[rule] * shift, (4, 1)), rtol=0.03)


def test_the_attack_needs_the_radius_that_the_factor_leaves_and_its_images_stay_images():
    """Two classes, logits +-w.x: the attacked margin is f (w.x - r ||w||_1), noise apart: images below r ||w||_1 break."""
    w, radius = jnp.array([1.0, -0.5, 0.2]), 0.1
    margins = jnp.array([0.3, 0.9, 1.5, 1.9]) * radius * jnp.sum(jnp.abs(w))
    x = jnp.concatenate([margins[:, None] * w / jnp.sum(w**2), jnp.array([[0.95, -0.95, 0.0]])])
    labels = jnp.array([0, 0, 0, 0, 1])

    def classify(keys, x):  # one draw for both, so that its noise cancels: the purified shift alone decides
        value = purify("ddim")(keys, x) @ w - purify("ddim")(keys, jnp.zeros_like(x)) @ w
        return jnp.stack([value, -value], axis=1)

    keys = jax.random.split(jax.random.key(2), 5)
    perturb = adversarial(BALLS["linf"], 5, step_length(5))
    found = purification.attack(classify, perturb, keys, keys[None], x, labels, jnp.float32(radius))
    np.testing.assert_allclose(np.abs(found - x)[:4], radius, rtol=1e-3)
    assert purification.correct(classify, keys[None], x, labels).tolist() == [1, 1, 1, 1, 0]
    assert purification.correct(classify, keys[None], found, labels).tolist() == [0, 0, 1, 1, 0]
    assert found[4].tolist() == pytest.approx([1.0, -1.0, radius])


@pytest.mark.parametrize("ball", BALLS)
def test_black_pixels_are_attacked_too(ball):
    """Half of the random starts lie beyond black, and every pixel has the same gradient."""
    x = jnp.full((2, 8, 8, 1), -1.0)

    def classify(keys, x):
        value = jnp.mean(x, axis=(1, 2, 3))
        return jnp.stack([-value, value], axis=1)

    keys = jax.random.split(jax.random.key(0), 2)
    perturb = adversarial(BALLS[ball], 20, step_length(20))
    shift = purification.attack(classify, perturb, keys, keys[None], x, jnp.zeros(2, int), jnp.float32(0.2)) - x
    assert jnp.mean(shift > 0.1) > 0.95
