"""The baselines: losses written out by hand, limits, and closed forms on Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, edm
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives import pseudo_huber, weights
from advdiff_jax.objectives.ambient import ambient
from advdiff_jax.objectives.at_diff import at_diff
from advdiff_jax.objectives.ddpm_ip import ddpm_ip
from advdiff_jax.objectives.denoising import add_noise, denoising, square
from advdiff_jax.objectives.jvp import jvp
from advdiff_jax.objectives.robust import robust
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.ball import BALLS, LINF
from advdiff_jax.perturbation.random import random
from advdiff_jax.training import state
from advdiff_jax.training.free_adversarial import make_ascent, make_free_step
from advdiff_jax.training.step import make_train_step
from configs import plane3d
from tests.processes import ALL
from tests.slopes import linear, vertex

EPS = PARAMETERIZATIONS["eps"]
SCHEDULE = ALL["ddpm_grid"]
PREDICTIONS = PARAMETERIZATIONS | {"edm": edm(0.3)}
STD = 0.3


def batch(n=32, dim=4):
    t = jnp.linspace(0.05, 1.0, n)
    return jax.random.split(jax.random.key(0), n), jax.random.normal(jax.random.key(1), (n, dim)), t


def network(x, t):
    matrix = jax.random.normal(jax.random.key(2), (x.shape[-1], x.shape[-1]))
    return jnp.tanh(x @ matrix) * (1.0 + t[:, None])


def best_slope(objective, schedule, parameterization, u=0.3, n=100_000, **known):
    """Finds the slope that minimises the objective at one noise level: a parabola through three values."""
    keys, data_key = jax.random.split(jax.random.key(3), n), jax.random.key(4)
    x0 = STD * jax.random.normal(data_key, (n, 1))
    if known:  # the data carry the noise whose std the objective knows
        x0 = x0 + known["noise_std"][:, None] * jax.random.normal(jax.random.key(5), (n, 1))
    t = schedule.time(jnp.full((n,), u))
    loss = jax.jit(lambda slope: jnp.mean(objective(linear(schedule, parameterization, slope), keys, x0, t, **known)[0]))
    return vertex(loss)


# --- AT_Diff ----------------------------------------------------------------------------------------------------------


def test_at_diff_is_anchored_on_the_true_noise():
    keys, x0, t = batch()
    delta = 0.1 * jax.random.normal(jax.random.key(6), x0.shape)
    loss, _ = at_diff(SCHEDULE, EPS)(network, keys, x0, t, delta)
    eps = np.stack([jax.random.normal(key, (4,)) for key in keys])
    alpha, sigma = np.asarray(SCHEDULE.alpha(t))[:, None], np.asarray(SCHEDULE.sigma(t))[:, None]
    expected = np.mean((np.asarray(network(alpha * x0 + sigma * eps + delta, t)) - (eps + delta / sigma)) ** 2, axis=1)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_at_diff_leaves_the_true_x0_in_any_parameterisation(name):
    keys, _, t = batch()
    truth = jnp.full((32, 4), 0.2)

    def predict(x, t):
        alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
        return PREDICTIONS[name].target(truth, (x - alpha * truth) / sigma, alpha, sigma)

    objective = at_diff(SCHEDULE, PREDICTIONS[name])
    scale = jnp.mean(objective(lambda x, t: jnp.zeros_like(x), keys, truth, t, 0.0 * truth)[0])
    assert jnp.max(objective(predict, keys, truth, t, 0.3 * jnp.ones_like(truth))[0]) < 1e-5 * scale


def test_the_ascent_is_a_step_of_given_length_and_stays_in_the_ball():
    gradient = jax.random.normal(jax.random.key(7), (5, 3, 4)) * jnp.array([1e-20, 1e-3, 1.0, 1e3, 0.0])[:, None, None]
    scale = jnp.array([1.0, 2.0, 1.0, 50.0, 1.0])
    delta = jax.jit(make_ascent(0.1, 10.0))(jnp.zeros((5, 3, 4)), gradient, scale)
    np.testing.assert_allclose(np.sqrt(np.sum(np.square(delta), axis=(1, 2))), [0.1, 0.2, 0.1, 5.0, 0.0], rtol=1e-5)
    assert np.all(np.sum(np.asarray(delta * gradient), axis=(1, 2)) >= 0.0)
    far = make_ascent(100.0, 0.1)(jnp.zeros((5, 3, 4)), gradient, scale)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(far), axis=(1, 2)))[:4], 0.1 * scale[:4], rtol=1e-5)
    with pytest.raises(ValueError, match="max_norm"):
        make_ascent(0.1, 0.0)


def steps(updates, adv_lr=0.1, optimizer=None, devices=1):
    """Takes a free step, and builds a plain one, of a linear network on 16 examples: (state, metrics) of each."""
    optimizer = optimizer or optax.adam(1e-2)
    apply = lambda params, x, t, keys: x @ params["w"] * (1.0 + t[:, None])
    start = state.create({"w": jnp.eye(4)}, optimizer)
    keys, x0 = jax.random.split(jax.random.key(8), 16), jax.random.normal(jax.random.key(9), (16, 4))
    split = lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:])
    shared = (SCHEDULE, optimizer, 0.9, lambda tree: jax.lax.pmean(tree, "d"))
    free = make_free_step(apply, lambda state: at_diff(SCHEDULE, EPS), *shared, updates=updates, ascend=make_ascent(adv_lr))
    plain = make_train_step(apply, lambda state: denoising(SCHEDULE, EPS), *shared)
    batch = {"examples": split(x0)}
    run = lambda step: jax.jit(jax.vmap(step, in_axes=(None, 0, 0), axis_name="d"))(start, split(keys), batch)
    return run(free), lambda: run(plain), (apply, start, keys, x0)


def test_one_free_update_is_a_plain_denoising_step():
    (free, metrics), plain, _ = steps(1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), free, plain()[0])
    assert metrics["delta_rms"] == 0.0


def test_free_updates_are_those_written_out():
    """Repeats K = 3 by hand under SGD: the same draws, delta by the normalised gradient, one step, three EMA updates."""
    (free, metrics), _, (apply, start, keys, x0) = steps(3, 0.4, optax.sgd(0.05))
    time_keys, noise_keys, _ = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    t = SCHEDULE.training_time(jax.vmap(jax.random.uniform)(time_keys))
    noised = add_noise(SCHEDULE, EPS, noise_keys, x0, t)
    w, average, delta = start.params["w"], start.params["w"], jnp.zeros_like(x0)
    for number in range(3):
        frozen = delta

        def loss(w, delta, target=noised.target + frozen / noised.sigma):
            return jnp.mean((apply({"w": w}, noised.x + delta, t, None) - target) ** 2)

        of_w, of_delta = jax.grad(loss, argnums=(0, 1))(w, delta)
        w = w - 0.05 * of_w
        average = 0.1 * average + 0.9 * w  # the ramp: min(0.9, 1 / 10)
        if number < 2:
            delta = delta + 0.4 * of_delta / jnp.linalg.norm(of_delta, axis=1, keepdims=True)
            norm = jnp.linalg.norm(delta, axis=1, keepdims=True)
            delta = delta * jnp.minimum(1.0, 0.1 * np.sqrt(4) / norm)
    np.testing.assert_allclose(free.params["w"][0], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(free.ema_params["w"][0], average, rtol=1e-4, atol=1e-5)
    assert free.step[0] == 1
    np.testing.assert_allclose(metrics["delta_rms"][0], np.sqrt(np.mean(np.square(delta))), rtol=1e-4)


def test_a_free_step_does_not_depend_on_the_devices():
    (one, _), _, _ = steps(3)
    (four, _), _, _ = steps(3, devices=4)
    np.testing.assert_allclose(one.params["w"][0], four.params["w"][3], rtol=1e-5, atol=1e-6)
    assert one.opt_state[0].count[0] == 3


# --- DDPM-IP, pseudo-Huber --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("process", ["ddpm_grid", "edm"])
def test_input_perturbation_shrinks_as_its_closed_form(process, gamma):
    schedule = ALL[process]
    found = best_slope(ddpm_ip(schedule, EPS, gamma), schedule, EPS)
    # eps_th = sigma x / (alpha^2 s^2 + sigma^2 (1 + gamma^2)) is x0hat = (x - sigma eps_th) / alpha.
    expected = 1.0 - 0.3**2 / (STD**2 + 0.3**2 * (1.0 + gamma**2))
    assert found == pytest.approx(expected, rel=0.02)


def test_pseudo_huber_is_quadratic_then_linear_and_as_written():
    keys, x0, t = batch()
    error = np.asarray(network(add_noise(SCHEDULE, EPS, keys, x0, t).x, t)) - add_noise(SCHEDULE, EPS, keys, x0, t).target
    run = lambda c: denoising(SCHEDULE, EPS, criterion=pseudo_huber.pseudo_huber(SCHEDULE, c))(network, keys, x0, t)[0]
    np.testing.assert_allclose(run(pseudo_huber.constant(1e3)), np.mean(error**2, axis=1), rtol=1e-4)
    np.testing.assert_allclose(run(pseudo_huber.constant(1e-5)), 2e-5 * np.mean(np.abs(error), axis=1), rtol=1e-2)
    u = np.asarray(SCHEDULE.noise_to_signal(t))
    for c, width in [
        (pseudo_huber.exponential(0.1), 0.1 ** np.asarray(t)),
        (pseudo_huber.snr(0.1), 0.9 / (1.0 + u) ** 2 + 0.1),
    ]:
        width = width[:, None]
        expected = np.mean(2.0 * width * (np.sqrt(error**2 + width**2) - width), axis=1)
        np.testing.assert_allclose(run(c), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="c0 must be positive"):
        pseudo_huber.exponential(0.0)


def test_huber_is_the_square_inside_and_linear_outside():
    error, t = jnp.array([[0.0, 0.5, -1.0], [3.0, -3.0, 0.0]]), jnp.array([0.2, 0.9])
    found = pseudo_huber.huber(SCHEDULE, pseudo_huber.constant(1.0))(error, t)
    np.testing.assert_allclose(found, [(0.25 + 1.0) / 3.0, (5.0 + 5.0) / 3.0], rtol=1e-6)
    doubled = 2.0 * optax.losses.huber_loss(error, delta=0.3)
    found = pseudo_huber.huber(SCHEDULE, pseudo_huber.constant(0.3))(error, t)
    np.testing.assert_allclose(found, jnp.mean(doubled, axis=1), rtol=1e-6)


def test_huber_bounds_the_pull_of_outliers():
    """A share p at a distance pulls the best constant by p c / (1 - p), and by p times the distance under the square."""
    share, far, width, n = 0.1, 5.0, 0.5, 1000
    x0 = jnp.where(jnp.arange(n) < share * n, far, 0.0)[:, None]
    keys, t = jax.random.split(jax.random.key(13), n), jnp.full(n, 0.5)

    def best(criterion):
        objective = denoising(SCHEDULE, PREDICTIONS["x0"], criterion=criterion)
        slope = jax.jit(jax.grad(lambda b: jnp.mean(objective(lambda x, t: jnp.full_like(x, b), keys, x0, t)[0])))
        return optimize.brentq(lambda b: float(slope(b)), 0.0, far, xtol=1e-6)

    huber = pseudo_huber.huber(SCHEDULE, pseudo_huber.constant(width))
    assert best(huber) == pytest.approx(share * width / (1.0 - share), rel=1e-3)
    assert best(square) == pytest.approx(share * far, rel=1e-3)


# --- JVP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eps", "v"])
def test_the_jvp_is_that_of_the_exact_jacobian(name):
    keys, x0, t = batch(8)
    parameterization = PREDICTIONS[name]
    objective = jvp(SCHEDULE, parameterization, radius.state_units(), LINF, weights.paper())
    aux = jax.jit(objective, static_argnums=0)(network, keys, x0, t)[1]
    noise_keys, _, probe_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    noised = add_noise(SCHEDULE, parameterization, noise_keys, x0, t)
    for i in (0, 7):
        v = jax.random.rademacher(probe_keys[i], (4,), jnp.float32)
        jacobian = jax.jacfwd(lambda x, i=i: network(x[None], t[i : i + 1])[0])(noised.x[i])
        wanted = parameterization.target(0.0, v, noised.alpha[i], noised.sigma[i])
        expected = jnp.mean((noised.sigma[i] * jacobian @ v - wanted) ** 2)
        np.testing.assert_allclose(aux["residual"][i], expected, rtol=1e-4)


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("process", ["ddpm_grid", "ve"])
@pytest.mark.parametrize("weight", [weights.paper(0.3), weights.cutoff(5.0, 0.5)])
def test_the_jvp_is_robust_ran_at_a_small_radius(ball, process, weight):
    """Compares means over many draws at one (x0, t); within the radius the network is all but linear."""
    schedule, n = ALL[process], 20_000
    small = radius.constant(1e-2)
    t = schedule.time(jnp.full((n,), 0.4))
    keys, x0 = jax.random.split(jax.random.key(10), n), 0.5 * jnp.ones((n, 3))
    ran = jax.jit(robust(schedule, EPS, small, random(BALLS[ball]), weight), static_argnums=0)(network, keys, x0, t)[1]
    limit = jax.jit(jvp(schedule, EPS, small, BALLS[ball], weight), static_argnums=0)(network, keys, x0, t)[1]
    assert jnp.mean(limit["penalty"]) == pytest.approx(float(jnp.mean(ran["penalty"])), rel=0.03)


# --- Ambient ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREDICTIONS)
def test_ambient_on_clean_examples_is_plain_denoising(name):
    keys, x0, t = batch()
    noise_keys = jax.vmap(jax.random.split)(keys)[:, 0]
    expected = denoising(SCHEDULE, PREDICTIONS[name])(network, noise_keys, x0, t)[0]
    found = ambient(SCHEDULE, PREDICTIONS[name])(network, keys, x0, t, jnp.zeros(32))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(ambient(SCHEDULE, PREDICTIONS[name], guess=0.0)(network, keys, x0, t)[0], found, rtol=1e-6)


def test_ambient_is_the_published_loss_written_out():
    """Writes out the VE form, times the weight 1 / u^2 of the eps-loss on the error of D."""
    schedule, s, u = ALL["edm"], 0.2, 0.5
    keys, x_n, _ = batch()
    t = schedule.time(jnp.full((32,), u))
    found = ambient(schedule, EPS)(network, keys, x_n, t, jnp.full((32,), s))[0]
    z = np.stack([jax.random.normal(key, (4,)) for key in jax.vmap(jax.random.split)(keys)[:, 0]])
    y = np.asarray(x_n) + np.sqrt(u**2 - s**2) * z
    denoised = y - u * np.asarray(network(y, t))
    predicted = (1.0 - s**2 / u**2) * denoised + s**2 / u**2 * y
    expected = u**4 / (u**2 - s**2) ** 2 / u**2 * np.mean((predicted - np.asarray(x_n)) ** 2, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(("process", "name"), [("ddpm_grid", "eps"), ("ddpm_grid", "x0"), ("edm", "edm"), ("flow", "flow")])
def test_ambient_learns_the_clean_posterior_mean(process, name):
    """With noise of std 0.2 on nine tenths of Gaussian data, D = s^2 / (s^2 + u^2) y of the clean data within 2 %."""
    schedule, parameterization = ALL[process], PREDICTIONS[name]
    noise = jnp.where(jnp.arange(100_000) % 10 < 9, 0.2, 0.0)
    found = best_slope(ambient(schedule, parameterization), schedule, parameterization, noise_std=noise)
    assert found == pytest.approx(STD**2 / (STD**2 + 0.3**2), rel=0.02)
    plain = denoising(schedule, parameterization)
    ignorant = best_slope(lambda *args, noise_std: plain(*args), schedule, parameterization, noise_std=noise)
    assert ignorant > 1.1 * found  # plain denoising keeps the noise, and would fail the test


def test_an_oracles_step_does_not_depend_on_the_devices():
    apply = lambda params, x, t, keys: x @ params["w"]
    optimizer = optax.sgd(0.1)
    average = lambda tree: jax.lax.pmean(tree, "d")
    step = make_train_step(apply, lambda state: ambient(SCHEDULE, EPS), SCHEDULE, optimizer, 0.9, average)
    keys, x0 = jax.random.split(jax.random.key(8), 16), jax.random.normal(jax.random.key(9), (16, 4))
    batch = {"examples": x0, "noise_std": jnp.linspace(0.0, 0.5, 16)}

    def run(devices):
        split = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), (keys, batch))
        start = state.create({"w": jnp.eye(4)}, optimizer)
        return jax.jit(jax.vmap(step, in_axes=(None, 0, 0), axis_name="d"))(start, *split)[0].params["w"][0]

    np.testing.assert_allclose(run(1), run(4), rtol=1e-5, atol=1e-6)


def test_a_time_below_the_noise_is_drawn_again_above_it():
    """The network sees times above the noise alone, distributed as the training times above it."""

    @jax.jit
    def run(keys, t, noise_std):
        seen = {}

        def spy(x, t):
            seen["t"] = t
            return 0.0 * x

        loss = ambient(schedule, EPS, margin=0.05)(spy, keys, jnp.zeros((n, 2)), t, noise_std)[0]
        return loss, seen["t"]

    schedule, n = ALL["ddpm_grid"], 4000
    keys = jax.random.split(jax.random.key(11), n)
    t = schedule.training_time(jax.random.uniform(jax.random.key(12), (n,)))
    loss, seen = run(keys, t, jnp.full((n,), 1.0))
    lowest = float(schedule.time(jnp.float32(1.05)))
    assert float(jnp.min(seen)) >= lowest
    np.testing.assert_array_equal(seen[t > lowest + 1e-3], t[t > lowest + 1e-3])
    assert np.mean(seen) == pytest.approx((1.0 + lowest) / 2.0, abs=0.02)  # uniform above
    assert jnp.all(loss > 0.0)
    beyond, _ = run(keys, t, jnp.full((n,), 1e6))
    np.testing.assert_array_equal(beyond, 0.0)


@pytest.mark.parametrize("kwargs", [{"margin": 0.0}, {"guess": -1.0}, {"variance_loss": lambda *args: {}}])
def test_ambient_refuses_bad_arguments(kwargs):
    with pytest.raises(InvalidArgument, match=r"need margin|learn the variance"):
        ambient(SCHEDULE, EPS, **kwargs)


@pytest.mark.parametrize(
    ("changed", "lowest"),
    [
        ({"fraction": 1.0}, 1.05 * 0.1),
        ({"fraction": 0.9}, 0.0),
        ({"fraction": 1.0, "chance": {"gaussian": 0.5}}, 0.0),
        ({"fraction": 1.0, "corruptions": ("gaussian_range",), "noise_std_min": 0.04}, 1.05 * 0.04),
    ],
)
def test_an_oracle_without_clean_examples_learns_nothing_below_their_noise(changed, lowest):
    config = plane3d.get_config("ambient_oracle")
    config.data.update(changed)
    assert objective_spec(config).lowest_noise(config) == pytest.approx(lowest)
