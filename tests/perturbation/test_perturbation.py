"""Radius, balls, and the inner maximisation: brute force, corners, and foolbox as an independent PGD."""

import foolbox
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import BALLS, L2, LINF
from advdiff_jax.perturbation.random import random

KEY = jax.random.key(0)


def sigma(u):
    """Returns the variance-preserving process's sigma at u = sigma / alpha."""
    return u / jnp.sqrt(1.0 + u**2)


def keys(n):
    return jax.random.split(KEY, n)


def size(delta, ball):
    """Returns the per-coordinate size of each example's delta in the ball's norm."""
    flat = delta.reshape(len(delta), -1)
    return jnp.max(jnp.abs(flat), axis=1) if ball == "linf" else jnp.sqrt(jnp.mean(flat**2, axis=1))


def curved(x):
    """Computes a nonlinear objective whose gradient is 0 at few points only: [B, 6] -> [B]."""
    return jnp.sum(jnp.sin(3.0 * x) * jnp.arange(1.0, 7.0), axis=1) + jnp.sum(x**2, axis=1)


# --- radius ---------------------------------------------------------------------------------------------------------


def test_the_papers_radius_in_state_and_in_noise_units():
    u = jnp.geomspace(0.01, 100.0, 7)
    state, noise = radius.state_units(), radius.noise_units()
    np.testing.assert_allclose(state.sample(keys(7), u), sigma(u) ** 2 + 8 / 255, rtol=1e-6)
    np.testing.assert_allclose(state.to_state(state.sample(keys(7), u), u), sigma(u) ** 2 + 8 / 255, rtol=1e-6)
    np.testing.assert_allclose(noise.to_state(noise.sample(keys(7), u), u), sigma(u) * (sigma(u) ** 2 + 8 / 255), rtol=1e-6)


def test_the_bias_is_uniform_between_its_ends():
    r = radius.state_units(rho=1.0, bias_min=0.1, bias_max=0.5)
    bias = r.sample(keys(4000), jnp.full(4000, 0.5)) - sigma(jnp.array(0.5))
    assert 0.1 <= bias.min() < 0.105
    assert 0.495 < bias.max() <= 0.5 + 1e-6
    assert float(bias.mean()) == pytest.approx(0.3, abs=4 * 0.4 / np.sqrt(12 * 4000))


def test_constant_radius():
    r = radius.constant(0.25)
    np.testing.assert_allclose(r.to_state(r.sample(keys(3), jnp.ones(3)), jnp.ones(3)), 0.25)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: radius.constant(-0.1), r"radius=-0\.1 must be positive"),
        (lambda: radius.constant(0.0), r"radius=0\.0 must be positive"),
        (lambda: radius.state_units(bias_min=-0.1, bias_max=0.1), r"bias_min=-0\.1, bias_max=0\.1 must satisfy 0 <= bias_min"),
        (lambda: radius.noise_units(bias_min=0.2, bias_max=0.1), r"bias_min=0\.2, bias_max=0\.1 must satisfy 0 <= bias_min"),
        (lambda: radius.state_units(rho=-1.0), r"rho=-1\.0 must be at least 0"),
    ],
)
def test_bad_radii_are_refused(build, message):
    with pytest.raises(InvalidArgument, match=message):
        build()


# --- balls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BALLS)
def test_samples_fill_the_ball_and_stay_in_it(name):
    delta = jax.vmap(lambda key: BALLS[name].sample(key, (2,), 0.5))(keys(20_000))
    r = size(delta, name)
    assert r.max() <= 0.5 + 1e-6
    # The share within a scaled ball is the ratio of volumes, scale^2 in two dimensions.
    assert float(jnp.mean(r < 0.25)) == pytest.approx(0.25, abs=0.015)
    np.testing.assert_allclose(delta.mean(axis=0), 0.0, atol=0.01)
    np.testing.assert_allclose(jnp.mean(delta**2), BALLS[name].energy(0.5, 2), rtol=0.02)


@pytest.mark.parametrize("name", BALLS)
def test_projection_is_the_nearest_point(name):
    """No point of a fine cloud in the ball is nearer."""
    ball = BALLS[name]
    outside = jnp.array([0.9, -0.3])
    projected = ball.project(outside, 0.5)
    cloud = jax.vmap(lambda key: ball.sample(key, (2,), 0.5))(keys(20_000))
    nearest = jnp.min(jnp.linalg.norm(cloud - outside, axis=1))
    assert jnp.linalg.norm(projected - outside) <= nearest + 1e-6
    assert size(projected[None], name)[0] <= 0.5 + 1e-6
    inside = jnp.array([0.1, -0.2])
    np.testing.assert_array_equal(ball.project(inside, 0.5), inside)


@pytest.mark.parametrize("name", BALLS)
def test_steepest_step_maximises_a_linear_function_over_the_unit_ball(name):
    gradient = jnp.array([0.3, -2.0, 0.01])
    step = BALLS[name].steepest(gradient)
    assert size(step[None], name)[0] == pytest.approx(1.0, rel=1e-5)
    cloud = jax.vmap(lambda key: BALLS[name].sample(key, (3,), 1.0))(keys(20_000))
    assert jnp.dot(gradient, step) >= jnp.max(cloud @ gradient)


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_steepest_is_safe_at_zero_and_extreme_gradients(name, scale):
    step = BALLS[name].steepest(scale * jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(step, 0.0 if scale == 0.0 else [1.0, -1.0], rtol=1e-5)
    np.testing.assert_array_equal(BALLS[name].project(jnp.zeros(3), 0.0), 0.0)
    np.testing.assert_array_equal(BALLS[name].project(jnp.ones(3), 0.0), 0.0)


# --- maximisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("steps", [1, 7])
def test_never_leaves_the_ball_and_raises_the_objective(name, steps):
    x = jax.random.normal(KEY, (64, 6))
    r = jnp.linspace(0.01, 2.0, 64)
    perturb = adversarial(BALLS[name], num_steps=steps, step_size=1.25 if steps == 1 else 0.25)
    delta = jax.jit(lambda: perturb(keys(64), curved, x, r))()
    assert jnp.all(size(delta, name) <= r * (1 + 1e-5))
    start = random(BALLS[name])(keys(64), curved, x, r)
    gain = curved(x + delta) - curved(x + start)
    small = r < 0.1  # the objective is nearly linear there, so every example must gain
    assert jnp.all(gain[small] > 0.0)
    assert jnp.mean(gain) > 0.0


@pytest.mark.parametrize("name", BALLS)
def test_reaches_the_corner_of_a_linear_objective(name):
    slope = jnp.array([1.0, -3.0, 0.5, 2.0])
    x, r = jnp.zeros((5, 4)), jnp.full(5, 0.3)
    perturb = adversarial(BALLS[name], num_steps=80, step_size=0.25)
    delta = jax.jit(lambda: perturb(keys(5), lambda x: x @ slope, x, r))()
    optimum = 0.3 * BALLS[name].steepest(slope)
    np.testing.assert_allclose(delta, jnp.broadcast_to(optimum, (5, 4)), atol=1e-6)


def test_more_steps_do_not_do_worse():
    x, r = jax.random.normal(KEY, (256, 6)), jnp.full(256, 0.5)
    value = lambda perturb: float(jax.jit(lambda: jnp.mean(curved(x + perturb(keys(256), curved, x, r))))())
    start, fgsm = value(random(LINF)), value(adversarial(LINF))
    assert start < fgsm < value(adversarial(LINF, num_steps=20, step_size=0.1))


def test_the_start_matters_where_the_gradient_is_zero():
    """J(delta) = ||f(x + delta) - f(x)||^2 is stationary at delta = 0, so without a random start nothing moves."""
    x, r = jax.random.normal(KEY, (8, 6)), jnp.full(8, 0.1)
    shift = lambda moved: jnp.sum((jnp.sin(3 * moved) - jnp.sin(3 * x)) ** 2, axis=1)
    delta = lambda perturb: jax.jit(lambda: perturb(keys(8), shift, x, r))()
    np.testing.assert_array_equal(delta(adversarial(LINF, random_start=False)), 0.0)
    assert jnp.all(shift(x + delta(adversarial(LINF))) > shift(x + delta(random(LINF))))


def test_no_gradient_flows_through_the_perturbation():
    x, r = jax.random.normal(KEY, (4, 6)), jnp.full(4, 0.1)

    def loss(scale):
        return jnp.sum(adversarial(L2, num_steps=2)(keys(4), lambda x: curved(scale * x), scale * x, r))

    assert jax.jit(jax.grad(loss))(1.0) == 0.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: adversarial(LINF, num_steps=0), "num_steps=0 must be at least 1"),
        (lambda: adversarial(LINF, step_size=0.0), r"step_size=0\.0 must be positive"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(InvalidArgument, match=message):
        build()


def test_agrees_with_foolbox():
    """foolbox's LinfPGD finds the same perturbation with the same objective, start and step length.

    foolbox maximises a cross-entropy of logits. For two classes with logits (0, z) and label 0 it is softplus(z), so with
    z = J(x) both ascend the same function.
    """
    x = jax.random.uniform(KEY, (32, 6), minval=-1.0, maxval=1.0)
    logits = lambda x: jnp.stack([jnp.zeros(len(x)), curved(x)], axis=1)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.02, steps=10, random_start=False)
    model = foolbox.models.JAXModel(logits, bounds=(-10.0, 10.0))
    # run() always attacks; __call__ would keep a clean input that is "misclassified" already.
    theirs = attack.run(model, x, foolbox.criteria.Misclassification(jnp.zeros(32, int)), epsilon=0.1) - x

    perturb = adversarial(LINF, num_steps=10, step_size=0.2, random_start=False)
    ours = jax.jit(lambda: perturb(keys(32), lambda x: jax.nn.softplus(curved(x)), x, jnp.full(32, 0.1)))()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
