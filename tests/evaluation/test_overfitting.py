"""The detector of catastrophic overfitting: silent where FGSM is exact, loud where a network hides from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.evaluation import overfitting
from advdiff_jax.objectives.denoising import mean_square
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import LINF
from configs import plane3d
from tests.processes import ALL

RADIUS = 0.1


def diagnose(config, predict):
    config = resolve(config)
    inputs = DiagnosticInputs(samples=None, data=build_data(config), predict=predict, noise_floor=None, plots=None)
    return DIAGNOSTICS["overfitting"].compute(config, inputs)


def measured(predict, **robust):
    config = plane3d.get_config("robust_adv")
    config.data.num_examples = 600
    config.robust.update({"radius": "constant", "constant": RADIUS, **robust})
    return diagnose(config, predict).numbers


@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_on_a_linear_network_one_step_finds_all(ball):
    found = measured(lambda x, t: 0.5 * x, ball=ball)
    assert found["overfitting_pgd10_over_fgsm"] == pytest.approx(1.0, rel=1e-3)
    assert found["overfitting_free_over_fgsm"] == pytest.approx(1.0, rel=1e-3)
    assert found["overfitting_worst10_over_fgsm"] == pytest.approx(1.0, rel=1e-3)
    # A random point of the box has a third of its corners' energy, one of the ball D / (D + 2).
    assert found["overfitting_random_over_fgsm"] == pytest.approx({"linf": 1 / 3, "l2": 3 / 5}[ball], rel=0.1)
    assert overfitting.warning(found, 2.0) == ""


def test_a_network_that_hides_from_one_step_is_found_out():
    """A sine of period RADIUS has not changed at the corners of the box, where a step of two radii ends, only on the way."""
    found = measured(lambda x, t: 100.0 * jnp.sin(2.0 * jnp.pi * x / RADIUS), step_size=2.0)
    assert found["overfitting_pgd10_over_fgsm"] > 10.0
    assert found["overfitting_random_over_fgsm"] > 10.0
    line = overfitting.warning(found, 2.0)
    assert line.startswith("catastrophic overfitting: ten steps find")
    assert "config.evaluation.overfitting_ratio=2" in line
    assert overfitting.warning(found, 1e9) == ""


def test_under_a_cutoff_it_looks_where_the_penalty_acts():
    """Only 3 % of training times lie below this cut; hiding is found out there, and does not count above it."""
    robust = {"step_size": 2.0, "weight": "cutoff", "cut": 0.1, "exponent": 16.0}

    def hiding(below):
        def predict(x, t):
            here = ((DDPMGrid().noise_to_signal(t) < 0.2) == below)[:, None]
            return jnp.where(here, 100.0 * jnp.sin(2.0 * jnp.pi * x / RADIUS), 0.5 * x)

        return predict

    assert measured(hiding(below=True), **robust)["overfitting_pgd10_over_fgsm"] > 10.0
    assert measured(hiding(below=False), **robust)["overfitting_pgd10_over_fgsm"] < 1.5
    assert measured(hiding(below=True), **(robust | {"kappa0": 0.0})) == {}


def test_times_are_chosen_in_proportion_to_kappa():
    counts = np.bincount(overfitting.where_it_acts(jnp.array([0.0, 1.0, 3.0, 0.0, 4.0]), 80), minlength=5)
    np.testing.assert_array_equal(counts, [0, 10, 30, 0, 40])


@pytest.mark.parametrize("objective", ["equivariance", "invariance"])
def test_every_choice_of_the_objective_is_that_of_the_config(objective):
    """If training uses the detector's own ten steps on the residual, the ratio is 1, and random finds less."""
    config = plane3d.get_config("robust_adv")
    config.objective, config.data.num_examples, config.network.width = objective, 100, 16
    config.robust.update({"maximize": "residual", "attack_steps": 10, "step_size": 0.25})
    experiment = build_experiment(resolve(config), (3,))
    params = jax.jit(experiment.init)(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)
    found = diagnose(config, lambda x, t: experiment.predict(params, x, t)).numbers
    assert found["overfitting_pgd10_over_fgsm"] == pytest.approx(1.0, rel=1e-4)  # the same steps from the same start
    assert found["overfitting_worst10_over_fgsm"] == pytest.approx(1.0, rel=1e-4)
    assert found["overfitting_random_over_fgsm"] < 1.0


@pytest.mark.parametrize("variant", ["ddpm", "robust_ran", "robust_adv_cutoff", "invariance"])
def test_only_adversarial_objectives_have_numbers(variant):
    config = plane3d.get_config(variant)
    config.data.num_examples = 70
    numbers = diagnose(config, lambda x, t: x).numbers
    assert set(numbers) == (set() if variant in ("ddpm", "robust_ran") else set(DIAGNOSTICS["overfitting"].outputs))


def test_free_is_the_gradient_of_the_denoising_loss():
    """With eps_hat = 0 the loss does not depend on the state, and delta is 0; with eps_hat = x, delta is along x - eps."""
    schedule = ALL["vp_linear"]
    x0, eps = jax.random.normal(jax.random.key(0), (2, 8, 3))
    t, radius = jnp.full((8,), 0.3), jnp.linspace(0.1, 0.8, 8)
    x = schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * eps
    keys = jax.random.split(jax.random.key(2), 8)
    perturb = adversarial(LINF, overfitting.FREE_STEPS, overfitting.FREE_STEP_SIZE, random_start=False)
    delta = perturb(keys, lambda moved: mean_square(moved - eps), x, radius)
    np.testing.assert_allclose(delta, radius[:, None] * jnp.sign(x - eps), rtol=1e-6)
    np.testing.assert_array_equal(perturb(keys, lambda moved: mean_square(0.0 * moved - eps), x, radius), 0.0)


def test_a_network_without_residual_hides_nothing():
    found = overfitting.ratios({name: jnp.zeros(3) for name in ("fgsm", "pgd10")})
    assert found == {"overfitting_pgd10_over_fgsm": 0.0}
    assert overfitting.warning(found, 2.0) == ""
