"""Attacks on the sampler of an exact Gaussian denoiser, where all is linear and the worst case is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import exact, schedules
from advdiff_jax.evaluation import attack_checks, attacks
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior
from advdiff_jax.sampling.shifted import Path, advance

KAPPA, COUNT, EXAMPLES = 0.3, 4, 16
SCHEDULE = schedules.VPLinear()
AXES = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
DENOISE = exact.denoiser(exact.gaussian([0.3, -0.2, 0.5], AXES @ np.diag([1.0, 0.2, 0.02]) @ AXES.T), SCHEDULE)
PATHS = {
    name: Path(DENOISE, rule, grids.uniform(COUNT))
    for name, rule in {"ddim": steps.ddim(SCHEDULE), "ddpm": steps.ancestral(SCHEDULE)}.items()
}
THREATS = {"start": attacks.start, "t0.5": lambda times: attacks.at(times, 0.5), "every": attacks.every}
KEYS = jax.random.split(jax.random.key(1), EXAMPLES)
START = prior(jax.random.split(jax.random.key(2), EXAMPLES), (3,), 1.0)


def target(sampler, threat):
    path = PATHS[sampler]
    return attacks.Target(path, SCHEDULE.sigma, lambda keys, x: x, THREATS[threat](path.times))


def noise(seed, draws=1):
    keys = jax.random.split(jax.random.key(seed), (draws, EXAMPLES))
    return attacks.Noise(keys, keys)


def jacobians(one):
    """Returns d sample / d shift of each shift over the units of its budget, [m, 3, 3]."""
    first, last = one.threat
    keys, zeros = KEYS[:1], jnp.zeros((last - first, 1, 3))

    def end(shifts):
        state = advance(one.path, keys, (jnp.zeros((1, 3)), ()), first, last, shifts)
        return advance(one.path, keys, state, last, COUNT)[0][0]

    found = np.asarray(jax.jit(jax.jacfwd(end))(zeros))[:, :, 0]  # [3, m, 3]
    return np.moveaxis(found, 1, 0) * np.asarray(one.radii)[:, None, None]


def largest(matrices, ball):
    """The worst case over kappa: the largest support function of the reachable set over unit directions v.

    L2: sum_i ||A_i^T v||_2; L-inf: the sum of the absolute entries of A_i^T v, over sqrt(D).
    """
    v = np.random.default_rng(3).standard_normal((20_000, 3))
    v = np.concatenate([v, *(np.linalg.svd(matrix)[0].T for matrix in matrices)])
    pulled = np.einsum("nd,mde->nme", v / np.linalg.norm(v, axis=1, keepdims=True), matrices)
    norms = np.linalg.norm(pulled, axis=2) if ball == "l2" else np.abs(pulled).sum(2) / np.sqrt(3)
    return norms.sum(1).max()


def attack(one, ball, count=20, objectives=("end",), restarts=4, known=None, judged=None):
    perturb = adversarial(BALLS[ball], count, step_length(count))
    program = jax.jit(lambda *args: attacks.worst(one, objectives, perturb, restarts, jnp.float32(KAPPA), *args))
    return jax.device_get(program(KEYS, known or noise(4), judged or noise(4), START))


@functools.cache
def on_ddpm_at_one_time():
    return attack(target("ddpm", "t0.5"), "l2")


def test_the_closed_form_is_that_of_one_matrix():
    """Largest singular value for L2, and the best vertex of the box for L-inf."""
    (matrix,) = matrices = jacobians(target("ddim", "start"))
    assert largest(matrices, "l2") == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-4)
    vertices = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), -1).reshape(-1, 3)
    assert largest(matrices, "linf") == pytest.approx(np.linalg.norm(vertices @ matrix.T, axis=1).max() / np.sqrt(3), rel=1e-3)


@pytest.mark.parametrize(
    ("sampler", "threat", "ball"),
    [("ddim", "start", "linf"), ("ddpm", "t0.5", "l2"), ("ddpm", "every", "linf"), ("ddpm", "every", "l2")],
)
def test_pgd_meets_the_closed_form_and_random_noise_its_mean(sampler, threat, ball):
    one = target(sampler, threat)
    matrices = jacobians(one)
    found = on_ddpm_at_one_time() if threat == "t0.5" else attack(one, ball)
    worst = KAPPA * largest(matrices, ball)
    np.testing.assert_allclose(found.displacement, worst, rtol=0.05)
    assert np.max(found.displacement) < 1.001 * worst
    np.testing.assert_allclose(jnp.sqrt(jnp.mean((found.samples - found.clean) ** 2, axis=1)), found.displacement, rtol=1e-4)
    random = jax.jit(lambda: attacks.random(one, BALLS[ball], 300, jnp.float32(KAPPA), KEYS, noise(4), START))()
    mean = KAPPA * np.sqrt(np.sum(matrices**2) / 3)  # of the square: the Frobenius norm
    assert np.sqrt(np.mean(random**2)) == pytest.approx(mean, rel=0.03)


def test_noise_that_the_attacker_does_not_know_changes_nothing_here():
    one = target("ddpm", "t0.5")
    fixed, fresh = on_ddpm_at_one_time(), attack(one, "l2", known=noise(5, 3), judged=noise(6, 2))
    np.testing.assert_allclose(fixed.displacement, fresh.displacement, rtol=0.02)
    assert not np.allclose(fixed.clean, fresh.clean, atol=0.05)


def test_the_one_step_objectives_find_the_worst_shift_at_one_time():
    """In L2 the worst shift is the top direction for all three: one estimate shares the axes of the whole sampler."""
    worst = KAPPA * largest(jacobians(target("ddpm", "t0.5")), "l2")
    found = attack(target("ddpm", "t0.5"), "l2", objectives=("violation", "x0hat"), restarts=1)
    np.testing.assert_allclose(found.displacement, worst, rtol=0.05)


def test_along_a_path_shifts_to_one_side_add_up_and_the_worst_objective_is_taken():
    one = target("ddim", "every")
    worst = KAPPA * largest(jacobians(one), "l2")
    x0hat = attack(one, "l2", 10, ("x0hat",), 1).displacement
    np.testing.assert_allclose(x0hat, worst, rtol=0.05)  # all shifts have the same best direction here
    violation = attack(one, "l2", 10, ("violation",), 1).displacement
    assert np.all(violation < 1.001 * worst)
    assert np.mean(violation) < 0.9 * worst  # each goes to a side of its own


def test_evaluations_are_those_that_the_programs_make():
    made = 0

    def count(x):
        nonlocal made
        made += x.size // 3
        return x

    def tick(x):
        return jax.pure_callback(count, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")

    probe = jax.custom_vjp(tick)
    probe.defvjp(lambda x: (tick(x), None), lambda _, cotangent: (tick(cotangent),))
    path = PATHS["ddpm"]._replace(denoise=lambda x, t: DENOISE(probe(x), t))
    one = target("ddpm", "every")._replace(path=path)
    for objective in ("x0hat", "end"):
        made = 0
        attack(one, "linf", 3, (objective,), 2, noise(5, 2), noise(6, 2))
        expected = EXAMPLES * attacks.evaluations(one.threat, COUNT, 0, (objective,), 3, 2, 2)
        assert 0.85 * expected < made <= 1.02 * expected, objective  # the compiler leaves some out


@pytest.mark.parametrize(("t", "index"), [(0.5, 2), (0.9, 1), (0.01, 3)])
def test_a_time_is_the_nearest_of_the_grid(t, index):
    assert attacks.at(grids.uniform(COUNT), t) == attacks.Threat(index, index + 1)


def curve(pgd, fgsm, random, huge=9.0):
    methods = {"pgd10": [*pgd, huge], "fgsm": [*fgsm, huge], "random": [*random, huge]}
    values = {
        (name, kappa): np.full(4, v) for name, ones in methods.items() for kappa, v in zip((0.1, 1, 10), ones, strict=True)
    }
    return attack_checks.Curve("ddim_linf_start", (0.1, 1), 10, list(methods), values, 5.0)


def test_checks_hold_for_a_sound_attack_and_each_finds_its_fault():
    holds = lambda *args: [one.holds for one in attack_checks.check(curve(*args))]
    assert holds([0.3, 2.0], [0.2, 1.9], [0.1, 1.0]) == [True, True, True]
    assert holds([0.3, 2.0], [0.4, 1.9], [0.1, 1.0]) == [False, True, True]  # one step beats many
    assert holds([0.3, 2.0], [0.2, 1.9], [0.1, 1.95]) == [False, True, True]  # noise beats one step
    assert holds([0.3, 0.2], [0.2, 0.1], [0.1, 0.1]) == [True, False, True]
    assert holds([0.3, 2.0], [0.2, 1.9], [0.1, 1.0], 3.0) == [True, True, False]
    sound, weak = (attack_checks.check(curve([0.3, 2.0], [0.2, 1.9], [r, 1.0])) for r in (0.1, 0.9))
    assert attack_checks.warning(sound) == ""
    assert attack_checks.warning(weak).startswith(
        "attack: 1 of 3 checks fail, the first: ddim_linf_start: pgd10 >= fgsm >= random"
    )


def test_the_spread_is_the_distance_of_two_samples():
    x = np.random.default_rng(0).standard_normal((200, 3))
    pairs = x[:, None] - x[None]
    expected = np.sqrt(np.mean(pairs**2) * 200 / 199)  # without the pairs of one sample
    assert attack_checks.spread(x) == pytest.approx(expected, rel=1e-6)
