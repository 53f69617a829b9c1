"""The paper's objective: exact identities, the loss written out by hand, and closed forms on Gaussian data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.controls import denoising_loss, residual_loss, shift_of_x0
from advdiff_jax.objectives.denoising import add_noise, denoising, mean_square
from advdiff_jax.objectives.robust import prediction_shift, robust
from advdiff_jax.objectives.subsample import one_per_group
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import L2, LINF
from advdiff_jax.perturbation.random import random

KEY = jax.random.key(0)
SCHEDULE = schedules.DDPMGrid()
EPS = PARAMETERIZATIONS["eps"]
PERTURBATIONS = {"random": random(LINF), "adversarial": adversarial(LINF)}


def batch(n=32, dim=4):
    t = jnp.linspace(0.05, 1.0, n)
    return jax.random.split(KEY, n), jax.random.normal(jax.random.key(1), (n, dim)), t


def build(perturb=PERTURBATIONS["random"], parameterization=EPS, weight=None, group_size=1, **kwargs):
    return robust(
        SCHEDULE,
        parameterization,
        radius.state_units(),
        perturb,
        weight or weights.paper(0.3),
        subsample=functools.partial(one_per_group, group_size=group_size),
        **kwargs,
    )


def constant_x0(name):
    """Builds a network whose x0hat is 0.3 everywhere: perfectly equivariant, in any parameterisation."""

    def predict(x, t):
        alpha, sigma = schedules.bcast(SCHEDULE.alpha(t), x), schedules.bcast(SCHEDULE.sigma(t), x)
        x0 = jnp.full_like(x, 0.3)
        return PARAMETERIZATIONS[name].target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return predict


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("perturb", PERTURBATIONS)
def test_a_constant_denoiser_is_equivariant_and_not_invariant(name, perturb):
    keys, x0, t = batch()
    objective = build(PERTURBATIONS[perturb], PARAMETERIZATIONS[name])
    loss, aux = objective(constant_x0(name), keys, x0, t)
    assert loss.shape == (32,)
    np.testing.assert_allclose(aux["residual"], 0.0, atol=1e-3 * float(jnp.max(aux["denoising"])))
    control = build(PERTURBATIONS[perturb], PARAMETERIZATIONS[name], shift_of=shift_of_x0)(constant_x0(name), keys, x0, t)[1]
    assert jnp.all(control["residual"] > 1e-4)


def test_a_constant_eps_is_invariant_and_has_residual_w():
    keys, x0, t = batch()
    constant = lambda x, t: jnp.ones_like(x)
    np.testing.assert_array_equal(build(shift_of=shift_of_x0)(constant, keys, x0, t)[1]["residual"], 0.0)
    # With a constant prediction the residual is mean(w^2), so a weight of kappa / energy leaves kappa itself.
    aux = build(weight=weights.cutoff(5.0, 0.5, 4.0))(constant, keys, x0, t)[1]
    u = SCHEDULE.noise_to_signal(t)
    np.testing.assert_allclose(aux["penalty"], 5.0 / (1.0 + (u / 0.5) ** 4), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("perturb", PERTURBATIONS)
def test_the_loss_is_equation_9_written_out(perturb):
    """Recomputes the loss without the library: NumPy for the norms, the same draws of eps, b and delta."""
    keys, x0, t = batch()
    matrix = jax.random.normal(jax.random.key(2), (4, 4))
    predict = lambda x, t: jnp.tanh(x @ matrix) * (1.0 + t[:, None])
    loss, aux = build(PERTURBATIONS[perturb])(predict, keys, x0, t)

    noise_keys, _, perturb_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    eps = np.stack([jax.random.normal(key, (4,)) for key in noise_keys])
    alpha, sigma = np.asarray(SCHEDULE.alpha(t))[:, None], np.asarray(SCHEDULE.sigma(t))[:, None]
    x = alpha * x0 + sigma * eps
    r = sigma[:, 0] ** 2 + 8 / 255
    clean = np.asarray(predict(x, t))
    delta = np.stack([jax.random.uniform(key, (4,), minval=-b, maxval=b) for key, b in zip(perturb_keys, r, strict=True)])
    if perturb == "adversarial":
        gradient = jax.grad(lambda d: jnp.sum((predict(x + d, t) - clean) ** 2))(delta)
        delta = np.clip(delta + 1.25 * r[:, None] * np.sign(gradient), -r[:, None], r[:, None])
    residual = np.mean((np.asarray(predict(x + delta, t)) - (clean + delta / sigma)) ** 2, axis=1)
    expected = np.mean((clean - eps) ** 2, axis=1) + 0.3 * np.sqrt(3) / r * residual
    np.testing.assert_allclose(aux["residual"], residual, rtol=1e-3)
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


@pytest.mark.parametrize(("perturb", "forwards"), [("random", 2), ("adversarial", 3)])
def test_the_clean_forward_is_computed_once(perturb, forwards):
    keys, x0, t = batch()
    calls = []

    def predict(x, t):
        calls.append(1)
        return jnp.sin(x)

    build(PERTURBATIONS[perturb])(predict, keys, x0, t)
    assert len(calls) == forwards


def test_the_attack_loss_decides_the_ascent():
    """A tanh network has its largest residual where it saturates, and its largest shift where it does not."""
    keys, x0, t = batch(256)
    predict = lambda x, t: jnp.tanh(3.0 * x)

    def residual(attack_loss):
        objective = build(adversarial(LINF, 10, 0.25), attack_loss=attack_loss)
        return jnp.mean(jax.jit(objective, static_argnums=0)(predict, keys, x0, t)[1]["residual"])

    assert residual(residual_loss()) > 1.02 * residual(prediction_shift)


@pytest.mark.parametrize(("attack_loss", "std"), [(prediction_shift, 0.05), (residual_loss(), 1.0)])
def test_the_shift_is_largest_along_the_noise_and_the_residual_along_the_signal(attack_loss, std):
    """Uses Gaussian data of stds 0.05, 0.3 and 1 with their best predictor, and perturbations of L2 norm r sqrt(D)."""
    keys, x0, _ = batch(64, 3)
    t = jnp.linspace(0.02, 0.2, 64)  # sigma / alpha from 0.05 to 0.5
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    slope = lambda s: sigma / (alpha**2 * s**2 + sigma**2)
    stds = jnp.array([0.05, 0.3, 1.0])
    objective = build(adversarial(L2, 200, 0.5), attack_loss=attack_loss)
    found = objective(lambda x, t: slope(stds) * x, keys, stds * x0, t)[1]["residual"]
    r = sigma**2 + 8 / 255
    np.testing.assert_allclose(found, (((1 / sigma - slope(std)) * r) ** 2)[:, 0], rtol=1e-2)


def test_denoising_is_the_mean_square_error_of_eps():
    keys, x0, t = batch()
    noised = add_noise(SCHEDULE, EPS, keys, x0, t)
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    np.testing.assert_allclose(noised.x, alpha * x0 + sigma * noised.target, rtol=1e-6)
    loss, _ = denoising(SCHEDULE, EPS)(lambda x, t: jnp.zeros_like(x), keys, x0, t)
    np.testing.assert_allclose(loss, np.mean(np.asarray(noised.target) ** 2, axis=1), rtol=1e-6)
    exact, _ = denoising(SCHEDULE, EPS)(lambda x, t: noised.target, keys, x0, t)
    np.testing.assert_array_equal(exact, 0.0)


# --- closed form: `diffusion.gain` --------------------------------------------------------------------------------

TIMES = jnp.array([0.02, 0.05, 0.1, 0.2])
DATA_STD = 0.8


def perturbation_energy(perturb, t, a, n=40_000):
    """Estimates E[w^2] of the perturbations of eps_th(x) = a x at time t."""
    keys = jax.random.split(jax.random.key(3), n)
    x = add_noise(SCHEDULE, EPS, keys, DATA_STD * jax.random.normal(KEY, (n, 1)), jnp.full(n, t)).x
    r = SCHEDULE.sigma(jnp.full(n, t)) ** 2 + 8 / 255
    delta = perturb(keys, lambda moved: mean_square(a * moved - a * x), x, r)
    return float(jnp.mean((delta / SCHEDULE.sigma(t)) ** 2))


@pytest.mark.parametrize("perturb", PERTURBATIONS)
def test_a_linear_predictor_learns_the_score_of_shrunk_data(perturb):
    """a* = sigma (1 + kappa) / (alpha^2 s^2 + sigma^2 (1 + kappa)), kappa = lambda_t E[w^2], within 2 %."""
    n = 1024
    t = jnp.repeat(TIMES, n)
    objective = build(PERTURBATIONS[perturb])
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 600))

    def loss(a, key):
        data_key, key = jax.random.split(key)
        x0 = DATA_STD * jax.random.normal(data_key, (len(t), 1))
        predict = lambda x, t: jnp.repeat(a, n)[:, None] * x
        return jnp.sum(jnp.mean(objective(predict, jax.random.split(key, len(t)), x0, t)[0].reshape(-1, n), axis=1))

    @jax.jit
    def train(a):
        def step(carry, key):
            a, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(a, key), opt_state)
            return (a + updates, opt_state), None

        return jax.lax.scan(step, (a, optimizer.init(a)), jax.random.split(jax.random.key(4), 600))[0][0]

    found = train(jnp.ones(len(TIMES)))
    for a, time in zip(found, TIMES, strict=True):
        alpha, sigma = SCHEDULE.alpha(time), SCHEDULE.sigma(time)
        r = sigma**2 + 8 / 255
        energy = r**2 / (3 * sigma**2) if perturb == "random" else perturbation_energy(PERTURBATIONS[perturb], time, a)
        kappa = 0.3 * jnp.sqrt(3.0) / r * energy
        expected = sigma * (1 + kappa) / (alpha**2 * DATA_STD**2 + sigma**2 * (1 + kappa))
        assert float(a) == pytest.approx(float(expected), rel=0.02)
        plain = sigma / (alpha**2 * DATA_STD**2 + sigma**2)
        assert abs(float(a) / float(plain) - 1) > 0.05  # a missing penalty would fail the test


@pytest.mark.parametrize("group_size", [2, 8])
def test_the_penalty_of_a_group_is_that_of_one_example_importance_weighted(group_size):
    """The example keeps its own draws; the denoising term is that of all examples."""
    keys, x0, t = batch(32)
    matrix = jax.random.normal(jax.random.key(2), (4, 4))
    offset = 0.1 * jnp.arange(32.0)[:, None]  # a network that differs from example to example, as with dropout
    predict = lambda x, t, rows=slice(None): jnp.tanh(x @ matrix + offset[rows]) * (1.0 + t[:, None])
    whole = build(PERTURBATIONS["adversarial"])(predict, keys, x0, t)[1]
    loss, part = build(PERTURBATIONS["adversarial"], group_size=group_size)(predict, keys, x0, t)
    u = SCHEDULE.noise_to_signal(t)
    r = SCHEDULE.sigma(t) ** 2 + 8 / 255
    kappa = np.asarray(weights.paper(0.3)(u, r, None) * (r / SCHEDULE.sigma(t)) ** 2).reshape(-1, group_size)
    importance_weight = np.asarray(kappa.sum(axis=1, keepdims=True) / kappa).reshape(-1)
    of_group = np.asarray(whole["residual"]).reshape(-1, group_size)
    place = np.argmin(np.abs(of_group - part["residual"][:, None]), axis=1)
    assert len({*place.tolist()}) > 1
    chosen = group_size * np.arange(len(place)) + place
    np.testing.assert_allclose(part["residual"], whole["residual"][chosen], rtol=1e-5)
    expected = np.repeat((importance_weight * whole["penalty"])[chosen] / group_size, group_size)
    np.testing.assert_allclose(part["penalty"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, whole["denoising"] + expected, rtol=1e-5)
    with pytest.raises(ValueError, match="group_size=5 does not divide the batch of 32"):
        build(group_size=5)(predict, keys, x0, t)
    with pytest.raises(ValueError, match="group_size=0 must be at least 1"):
        one_per_group(mean_square, 0)


def test_a_group_of_eight_keeps_the_mean_and_hardly_adds_variance_under_a_cutoff():
    matrix = jax.random.normal(jax.random.key(2), (4, 4))
    predict = lambda x, t, rows=None: jnp.tanh(x @ matrix)

    def sums(group_size, batches=2000):
        """Sums the penalty over a batch of 32, for many batches."""
        objective = build(weight=weights.cutoff(5.0, 0.1), group_size=group_size)

        def one(key):
            data_key, time_key, step_key = jax.random.split(key, 3)
            x0, t = jax.random.normal(data_key, (32, 4)), SCHEDULE.training_time(jax.random.uniform(time_key, (32,)))
            return jnp.sum(objective(predict, jax.random.split(step_key, 32), x0, t)[1]["penalty"])

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), batches))

    whole, part = sums(1), sums(8)
    assert float(part.mean()) == pytest.approx(float(whole.mean()), rel=0.03)
    assert part.var() < 1.5 * whole.var()  # examples drawn evenly would have 8 times the variance


def test_a_group_without_weight_adds_nothing():
    keys, x0, t = batch(8)
    objective = build(weight=lambda u, r, energy: jnp.zeros_like(u), group_size=4)
    loss, aux = objective(lambda x, t, rows=None: 0.5 * x, keys, x0, t)
    np.testing.assert_array_equal(aux["penalty"], 0.0)
    np.testing.assert_array_equal(loss, aux["denoising"])


def test_the_denoising_loss_ascends_along_the_gradient_of_the_denoising_term():
    """FGSM on the denoising loss from delta = 0: delta = r sign(grad || eps_th(x_t) - eps ||^2)."""
    keys, x0, t = batch(32)
    matrix = jax.random.normal(jax.random.key(2), (4, 4))
    predict = lambda x, t: jnp.tanh(x @ matrix)
    moved = []

    def spy(x, t):
        moved.append(x)
        return predict(x, t)

    perturb = adversarial(LINF, 1, 1.0, random_start=False)
    build(perturb, attack_loss=denoising_loss())(spy, keys, x0, t)
    noise_keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)[:, 0]
    noised = add_noise(SCHEDULE, EPS, noise_keys, x0, t)
    gradient = jax.grad(lambda x: jnp.sum((predict(x, t) - noised.target) ** 2))(noised.x)
    r = (SCHEDULE.sigma(t) ** 2 + 8 / 255)[:, None]
    np.testing.assert_allclose(moved[-1] - moved[0], r * np.sign(gradient), atol=1e-5)
