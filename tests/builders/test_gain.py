"""The gain in closed form, against what the library's own objectives teach a linear network and its samplers make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.gain import build_closed_form, build_curve, curve_stds, gain_as_sampled, gain_curve
from advdiff_jax.builders.objectives import OBJECTIVES, build_objective, build_variance_loss
from advdiff_jax.builders.penalty import PERTURBATIONS, SHIFTS
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion import gain
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser
from advdiff_jax.diffusion.schedules import EDM
from advdiff_jax.errors import UserError
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.robust import robust
from advdiff_jax.perturbation import adversarial, radius, random
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior, sample
from configs import gaussian, plane3d
from configs.variants import VARIANTS

STDS = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
EPS = PARAMETERIZATIONS["eps"]
PERTURB = {"random": random.random, "adversarial": adversarial.adversarial}


def linear(schedule, slopes):
    """Builds eps_hat of x0hat = slope x / alpha, a slope a coordinate: [D], or [B, D]."""

    def predict(x, t):
        sigma = schedule.sigma(t)[:, None]
        return (1.0 - slopes) * x / sigma

    return predict


def learnt(schedule, objective, levels, n=8000):
    """Finds the slopes [L, D] that minimise the objective at each level: it is a parabola, so two gradients suffice."""

    @jax.jit
    def at(i, u):
        t = jnp.full((n,), schedule.time(u))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), i), n)
        x0 = STDS * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (n, len(STDS)))

        def gradient(slopes):
            return jax.grad(lambda a: jnp.mean(objective(linear(schedule, a), keys, x0, t)[0]))(slopes)

        low, high = (gradient(jnp.full(STDS.shape, value)) for value in (0.0, 0.5))
        return 0.5 * low / (low - high)

    return jax.lax.map(lambda level: at(*level), (jnp.arange(len(levels)), jnp.asarray(levels, jnp.float32)))


def gain_of_samplers(kappa, invariant="x0", u_min=0.002, u_max=80.0):
    """Computes the gain of the ODE down to u_min and of the estimate of x0 there, with which samplers end, [S]."""
    slope = gain.SLOPES[invariant](u_min**2, STDS**2, np.asarray(kappa(np.array([u_min])), float))
    return gain.gain(kappa, STDS, u_min, u_max, invariant=invariant) * (1.0 - slope)


@pytest.mark.parametrize(
    ("kind", "ball", "weight", "invariant"),
    [
        ("random", "linf", weights.paper(0.3), "x0"),
        ("random", "l2", weights.paper(0.3), "x0"),
        ("random", "linf", weights.paper(0.3), "eps"),
        ("adversarial", "linf", weights.paper(0.3), "x0"),
        ("adversarial", "linf", weights.cutoff(5.0, 0.1), "x0"),
    ],
)
def test_what_the_objective_teaches_a_linear_network_is_the_closed_form(kind, ball, weight, invariant):
    """Slopes learnt by the library's objective, sampled by its Heun rule: the gain of every direction, within 3 %."""
    schedule, of_radius = EDM(), radius.state_units()
    objective = robust(schedule, EPS, of_radius, PERTURB[kind](BALLS[ball]), weight, shift_of=SHIFTS[invariant])
    levels = np.geomspace(schedule.sigma_min, schedule.sigma_max, 61)
    slopes = learnt(schedule, objective, levels)

    def predict(x, t):
        position = jnp.log(schedule.noise_to_signal(t) / levels[0]) / np.log(levels[1] / levels[0])
        here = jax.vmap(lambda column: jnp.interp(position, jnp.arange(len(levels)), column), 1, 1)(slopes)
        return linear(schedule, here)(x, t)

    keys = jax.random.split(jax.random.key(2), 2000)
    start = prior(keys, STDS.shape, schedule.prior_std)
    start = start / jnp.std(start, axis=0) * schedule.prior_std  # two thousand would leave 1.6 % of chance
    samples = sample(denoiser(schedule, EPS, predict), keys, start, grids.edm(100, schedule), steps.edm(schedule))

    energy = BALLS[ball].energy(1.0, len(STDS)) if kind == "random" else 1.0
    strength = gain.penalty_strength(of_radius, weight, schedule, energy)
    expected = gain_of_samplers(lambda u: strength(u).kappa, invariant, schedule.sigma_min, schedule.sigma_max)
    np.testing.assert_allclose(np.std(samples, axis=0) / STDS, expected, rtol=0.03)


@pytest.mark.parametrize("variant", ["robust_ran", "invariance", "jvp", "ddpm_ip"])
def test_the_closed_form_of_a_config_is_what_its_objective_teaches_a_linear_network(variant):
    config, levels = gaussian.get_config(variant), np.array([0.05, 0.3, 2.0])
    config.baselines.gamma = 1.0  # the paper's 0.1 is a kappa of 0.01, which nobody could see
    process = build_process(config)._replace(parameterization=EPS)
    objective = build_objective(config, process, build_variance_loss(config, process), jnp.float32(0.1))
    closed_form = build_closed_form(config, lambda: 0.1)
    kappa = np.asarray(closed_form.at(levels).kappa)
    expected = 1.0 - gain.SLOPES[closed_form.invariant](levels[:, None] ** 2, STDS**2, kappa[:, None])
    np.testing.assert_allclose(learnt(process.schedule, objective, levels), expected, atol=0.02)
    assert kappa.min() > 0.0


# The adaptive solver's steps are long where it may err.
@pytest.mark.parametrize(("method", "tolerance"), [("heun", 0.01), ("dpm_solver_2m", 0.01), ("ode", 0.04)])
def test_the_gain_as_sampled_is_the_closed_form_where_steps_are_short(method, tolerance):
    config = gaussian.get_config("robust_adv_cutoff")
    config.sampling.update({"method": method, "steps": 300})
    closed_form = build_closed_form(config, lambda: 0.1)
    expected = gain_of_samplers(lambda u: closed_form.at(u).kappa)
    np.testing.assert_allclose(gain_as_sampled(config, closed_form, STDS), expected, rtol=tolerance)


def test_stochastic_sampling_of_an_unregularised_model_keeps_the_data():
    config = gaussian.get_config("ddpm")
    config.sampling.update({"method": "euler_maruyama", "grid": "log_snr", "steps": 400})
    found = gain_as_sampled(config, build_closed_form(config, lambda: 0.1), np.array([0.5, 1.0]))
    np.testing.assert_allclose(found, 1.0, rtol=0.04)


def test_a_sampler_that_is_not_linear_has_no_gain_as_sampled():
    config = gaussian.get_config("ddpm")
    config.sampling.method = "predictor_corrector"
    curve = build_curve(config, build_closed_form(config, lambda: 0.1), "ddpm", curve_stds())
    assert curve.sampled is None
    np.testing.assert_allclose(curve.gain[curve.stds > 0.1], 1.0, rtol=1e-3)  # of smaller ones the noise at u_min counts
    assert curve.numbers().keys() == {"std", "gain", "noise_to_signal", "radius", "weight", "kappa", "share"}


def test_every_variant_has_a_closed_form_or_says_which_have():
    without = {"at_diff", "ambient_oracle", "ambient_guess", "ambient_mask", "ambient_blind", "discard_blind", "gsure"}
    without |= {"em", "em_blind", "ambient_blind_adv", "discard_blind_adv"}
    for variant in VARIANTS.keys() - without:
        build_closed_form(plane3d.get_config(variant), lambda: 0.1)
    objectives = {VARIANTS[variant]["objective"]: variant for variant in without}
    known = ", ".join(name for name in OBJECTIVES if name not in objectives)
    for objective, variant in objectives.items():
        message = rf"config\.objective='{objective}' has no closed form of the gain, only {known} have: set another variant"
        with pytest.raises(UserError, match=message):
            build_closed_form(plane3d.get_config(variant), lambda: 0.1)


@pytest.mark.parametrize(
    ("ball", "steps", "length"), [("linf", 1, 0.1), ("linf", 1, 0.5), ("linf", 2, 0.25), ("l2", 1, 0.2), ("linf", 1, 0.0)]
)
def test_where_the_ascent_ends_is_in_the_closed_form(ball, steps, length):
    """kappa over that of a perturbation on the edge, against the library's own ascent of a linear model's shift."""
    config = plane3d.get_config("robust_adv")
    config.robust.update({"ball": ball, "attack_steps": steps, "step_size": length})
    ascend = PERTURBATIONS["adversarial"].build(config.robust, BALLS[ball])
    keys, ones = jax.random.split(jax.random.key(0), 20_000), jnp.ones(20_000)
    delta = ascend(keys, lambda x: jnp.sum(x**2, axis=-1), jnp.zeros((20_000, 3)), ones)
    strength = build_closed_form(config, lambda: 0.1).at(np.array([0.1]))
    sigma = 0.1 / np.hypot(0.1, 1.0)
    energy = strength.kappa / (strength.weight * (strength.radius / sigma) ** 2)
    np.testing.assert_allclose(energy[0], np.mean(delta**2), rtol=0.01)


@pytest.mark.parametrize(
    ("criterion", "width", "times"), [("pseudo_huber", 1.0, "1.8"), ("pseudo_huber", 0.1, "13"), ("huber", 1.0, "1.5")]
)
def test_the_description_says_how_much_a_robust_loss_strengthens_the_penalty(criterion, width, times):
    config = plane3d.get_config("robust_fast")
    config.criterion, config.baselines.huber_c = criterion, width
    assert f"up to {times} times as strong" in build_closed_form(config, lambda: 0.1).description


def test_an_adaptive_weight_has_the_curve_of_the_cutoff_at_its_level():
    config, fixed = plane3d.get_config("robust_adaptive"), plane3d.get_config("robust_adv_cutoff")
    fixed.robust.cut = 0.07
    forms = build_closed_form(config, lambda: 0.07), build_closed_form(fixed, lambda: 1.0)
    np.testing.assert_allclose(*(gain_curve(form, STDS) for form in forms), rtol=1e-5)
    assert (forms[0].noise_floor, forms[1].noise_floor) == (0.07, None)


def test_the_dimension_of_the_data_is_read_for_the_l2_ball_alone():
    config = plane3d.get_config("robust_ran")
    config.data.source = "folder"  # of no path: reading it would fail
    build_closed_form(resolve(config), lambda: 0.1)
    config.robust.ball = "l2"
    with pytest.raises(UserError, match=r"config\.data\.path"):
        build_closed_form(resolve(config), lambda: 0.1)


def test_the_final_step_is_part_of_the_gain_as_sampled():
    """It leaves (v - s^2) / (v + u^2) of a direction whose variance v holds noise of std s, and a share of its own draws."""
    config = gaussian.get_config("ddpm")
    config.sampling.update({"method": "heun", "steps": 60, "final_denoise": 0.3, "final_level": 0.2, "final_draws": 256})
    stds = np.array([0.35, 0.5, 1.0])
    found = gain_as_sampled(config, build_closed_form(config, lambda: 0.1), stds)
    factor = (stds**2 - 0.3**2) / (stds**2 + 0.2**2)
    np.testing.assert_allclose(found, factor * np.sqrt(1.0 + 0.2**2 / 256 / stds**2), rtol=0.03)
