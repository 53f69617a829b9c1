"""The mode that shows the transfer curve, the gain measured on samples, and the two against each other on Gaussian data."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import (
    ablation,
    builders_data,
    builders_objectives,
    builders_process,
    builders_transfer,
    run,
    transfer_mode,
    workdir,
)
from advdiff_jax.diffusion import transfer
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser
from advdiff_jax.diffusion.schedules import EDM
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import directions
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.denoising import no_variance
from advdiff_jax.objectives.equivariance import equivariance
from advdiff_jax.perturbation import adversarial, radius, random
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior, sample
from configs import gaussian, plane3d
from configs.ablation import list_of_runs

STDS = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
EPS = PARAMETERIZATIONS["eps"]
PERTURBATIONS = {"random": random.random, "adversarial": adversarial.adversarial}


def _linear(schedule, slopes):
    """eps_hat of x0hat = slope x / alpha, a slope a coordinate: [D], or [B, D]."""

    def predict(x, t):
        sigma = schedule.sigma(t)[:, None]
        return (1.0 - slopes) * x / sigma

    return predict


def _learnt(schedule, objective, levels, n=8000):
    """The slopes [L, D] that minimise the objective at each level: it is a parabola in each, so two gradients tell."""

    @jax.jit
    def at(i, u):
        t = jnp.full((n,), schedule.time(u))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), i), n)
        x0 = STDS * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (n, len(STDS)))

        def gradient(slopes):
            return jax.grad(lambda a: jnp.mean(objective(_linear(schedule, a), keys, x0, t)[0]))(slopes)

        low, high = (gradient(jnp.full(STDS.shape, value)) for value in (0.0, 0.5))
        return 0.5 * low / (low - high)

    return jax.lax.map(lambda level: at(*level), (jnp.arange(len(levels)), jnp.asarray(levels, jnp.float32)))


@pytest.mark.parametrize(
    ("kind", "ball", "weight", "blame"),
    [
        ("random", "linf", weights.paper(0.3), "noise"),
        ("random", "l2", weights.paper(0.3), "noise"),
        ("random", "linf", weights.paper(0.3), "data"),
        ("adversarial", "linf", weights.paper(0.3), "noise"),
        ("adversarial", "linf", weights.cutoff(5.0, 0.1), "noise"),
    ],
)
def test_what_the_objective_teaches_a_linear_network_is_the_closed_form(kind, ball, weight, blame):
    """Slopes learnt by the library's objective, sampled by its Heun rule: the gain of every direction, within 3 %."""
    schedule, of_radius = EDM(), radius.state_units()
    objective = equivariance(schedule, EPS, of_radius, PERTURBATIONS[kind](BALLS[ball]), weight, blame=blame)
    levels = np.geomspace(schedule.sigma_min, schedule.sigma_max, 61)
    slopes = _learnt(schedule, objective, levels)

    def predict(x, t):
        position = jnp.log(schedule.noise_to_signal(t) / levels[0]) / np.log(levels[1] / levels[0])
        here = jax.vmap(lambda column: jnp.interp(position, jnp.arange(len(levels)), column), 1, 1)(slopes)
        return _linear(schedule, here)(x, t)

    keys = jax.random.split(jax.random.key(2), 2000)
    start = prior(keys, STDS.shape, schedule.prior_std)
    start = start / jnp.std(start, axis=0) * schedule.prior_std  # two thousand would leave 1.6 % of chance
    samples = sample(denoiser(schedule, EPS, predict), keys, start, grids.edm(100, schedule), steps.edm(schedule))

    energy = BALLS[ball].energy(1.0, len(STDS)) if kind == "random" else 1.0
    second_term = transfer.second_term(of_radius, weight, schedule, energy)
    expected = transfer.gain(
        lambda u: second_term(u).kappa, STDS, schedule.sigma_min, schedule.sigma_max, blame=blame, denoised=True
    )
    np.testing.assert_allclose(np.std(samples, axis=0) / STDS, expected, rtol=0.03)


@pytest.mark.parametrize("variant", ["robust_ran", "invariance", "jvp", "ddpm_ip"])
def test_the_law_of_a_config_is_what_its_objective_teaches_a_linear_network(variant):
    config, levels = gaussian.get_config(variant), np.array([0.05, 0.3, 2.0])
    config.neighbours.gamma = 1.0  # the paper's 0.1 is a kappa of 0.01, which nobody could see
    schedule = builders_process.build_schedule(config)
    objective = builders_objectives.build_objective(config, (schedule, EPS, no_variance), jnp.float32(0.1))
    law = builders_transfer.build_law(config, lambda: 0.1)
    kappa = np.asarray(law.at(levels).kappa)
    expected = 1.0 - transfer.SLOPES[law.blame](levels[:, None] ** 2, STDS**2, kappa[:, None])
    np.testing.assert_allclose(_learnt(schedule, objective, levels), expected, atol=0.02)
    assert kappa.min() > 0.0


# The adaptive solver's steps are long where it may err.
@pytest.mark.parametrize(("method", "tolerance"), [("heun", 0.01), ("dpm_solver_2m", 0.01), ("ode", 0.04)])
def test_the_gain_as_sampled_is_the_closed_form_where_steps_are_short(method, tolerance):
    config = gaussian.get_config("robust_adv_cutoff")
    config.sampling.update({"method": method, "steps": 300})
    law = builders_transfer.build_law(config, lambda: 0.1)
    expected = transfer.gain(lambda u: law.at(u).kappa, STDS, denoised=True)
    np.testing.assert_allclose(builders_transfer.as_sampled(config, law, STDS), expected, rtol=tolerance)


def test_stochastic_sampling_of_an_unregularised_model_keeps_the_data():
    config = gaussian.get_config("ddpm")
    config.sampling.update({"method": "euler_maruyama", "grid": "log_snr", "steps": 400})
    found = builders_transfer.as_sampled(config, builders_transfer.build_law(config, lambda: 0.1), np.array([0.5, 1.0]))
    np.testing.assert_allclose(found, 1.0, rtol=0.04)


def test_gains_of_points_built_by_hand():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    stds, kept = np.array([2.0, 1.0, 0.5, 0.0]), np.array([1.0, 0.5, 0.25, 3.0])
    train, drawn = (rng.standard_normal((20_000, 4)) * stds @ basis for _ in range(2))
    samples = (drawn @ basis.T * kept) @ basis
    found, gains = directions.gains(train, samples)
    np.testing.assert_allclose(found, stds[:3], rtol=0.03)  # the flat direction has no gain
    np.testing.assert_allclose(gains, kept[:3], rtol=0.03)
    pictures = rng.standard_normal((50, 40, 36, 1))
    assert len(directions.gains(pictures, pictures)[0]) == 32 * 32
    with pytest.raises(ValueError, match="need 4 examples"):
        directions.gains(train[:3], samples)


def test_stds_of_half_the_data_are_not_biased_by_the_choice_of_directions():
    """White noise, few examples: the smallest direction found in all of it would show half the true standard deviation."""
    noise = np.random.default_rng(0).standard_normal((200, 64))
    stds, _ = directions.gains(noise, noise)
    assert stds.min() > 0.75


def test_the_mode_prints_and_writes_and_claims_no_run(tmp_path, capsys):
    config = plane3d.get_config("robust_adv")
    page = run.run(config, tmp_path / "run", "transfer")
    assert {path.name for path in page.parent.iterdir()} == {"transfer.png", "transfer.json", "report.html"}
    told = capsys.readouterr().out
    row = next(line.split() for line in told.splitlines() if line.split()[:1] == ["0.2"])
    assert float(row[1]) == pytest.approx(0.26, abs=0.005)  # the paper's FGSM, lambda 0.3, by another program
    numbers = json.loads((page.parent / "transfer.json").read_text())["plane3d:robust_adv"]
    np.testing.assert_allclose(np.array(numbers["share"]), 1 - 1 / (1 + np.array(numbers["kappa"])), rtol=1e-5)
    assert numbers["radius"][0] == pytest.approx(8 / 255, rel=0.01)
    assert workdir.claim(config, tmp_path / "run", evaluate_only=False) == tmp_path / "run"


def test_no_second_term_is_said_and_no_closed_form_is_refused(tmp_path, capsys):
    config = plane3d.get_config("ddpm")
    run.run(config, tmp_path, "transfer")
    assert "no second term: every direction keeps its standard deviation" in capsys.readouterr().out
    config = plane3d.get_config("at_diff")
    with pytest.raises(UserError, match=r"config\.objective='at_diff' has no closed form of the gain"):
        run.run(config, tmp_path, "transfer")


def test_every_objective_of_the_paper_has_a_closed_form():
    assert builders_transfer.LAWS.keys() <= builders_objectives.OBJECTIVES.keys()
    for variant in ("ddpm", "invariance", "robust_ran", "robust_adv", "robust_adv_cutoff", "robust_fast", "jvp", "ddpm_ip"):
        builders_transfer.build_law(plane3d.get_config(variant), lambda: 0.1)


def test_a_list_of_runs_is_one_picture(tmp_path, capsys):
    runs = {
        "a": {"variant": "robust_adv"},
        "same": {"variant": "robust_adv", "data": {"fraction": 0.0}},
        "b": {"variant": "robust_ran", "robust": {"ball": "l2", "lam": 0.1}},
    }
    config = list_of_runs("x", "", plane3d.get_config(), runs, seeds=(0, 1), metrics=("w2",))
    page = ablation.run_all(config, tmp_path, "transfer", "0/1")
    assert page == tmp_path / "transfer" / "report.html"
    assert json.loads((page.parent / "transfer.json").read_text()).keys() == {"a (and 1 more)", "b", "noise_std"}
    assert "T(0.58)" in capsys.readouterr().out


def test_the_gaussian_source_has_its_stds_and_its_exact_law():
    config = gaussian.get_config()
    data = builders_data.build_data(config)
    np.testing.assert_allclose(np.std(data.train, axis=0), config.data.stds, rtol=0.02)
    config.data.stds = (0.1, -1.0)
    with pytest.raises(UserError, match="stds must be positive"):
        builders_data.build_data(config)


def test_the_level_of_a_linear_model_is_half_the_noise_that_fills_all_directions():
    noise = 0.3 * np.random.default_rng(0).standard_normal((20_000, 6))
    assert directions.noise_level(noise, 0.2) == pytest.approx(0.15, rel=0.03)
    # On two of six directions without variance, all noise is told there.
    assert directions.noise_level(noise * (np.arange(6) > 1), 0.5) == pytest.approx(0.15 * np.sqrt(4 / 3), rel=0.05)


@pytest.mark.parametrize(
    ("ball", "steps", "length"), [("linf", 1, 0.1), ("linf", 1, 0.5), ("linf", 2, 0.25), ("l2", 1, 0.2), ("linf", 1, 0.0)]
)
def test_where_the_ascent_ends_is_in_the_closed_form(ball, steps, length):
    """kappa of the law over that of a perturbation on the edge, against the library's own ascent of a linear model's shift."""
    config = plane3d.get_config("robust_adv")
    config.robust.update({"ball": ball, "attack_steps": steps, "step_size": length})
    ascend = builders_objectives.PERTURBATIONS["adversarial"](config.robust, BALLS[ball])
    keys, ones = jax.random.split(jax.random.key(0), 20_000), jnp.ones(20_000)
    delta = ascend(keys, lambda x: jnp.sum(x**2, axis=-1), jnp.zeros((20_000, 3)), ones)
    levels = builders_transfer.build_law(config, lambda: 0.1).at(np.array([0.1]))
    sigma = 0.1 / np.hypot(0.1, 1.0)
    energy = levels.kappa / (levels.weight * (levels.radius / sigma) ** 2)
    np.testing.assert_allclose(energy[0], np.mean(delta**2), rtol=0.01)


@pytest.mark.parametrize("noise", [0.003, 5.0])
def test_the_gain_of_noise_beyond_the_table_is_its_own(tmp_path, capsys, noise):
    config = plane3d.get_config("robust_adv")
    config.data.noise_std = noise
    run.run(config, tmp_path, "transfer")
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [f"{noise:g}"])
    expected = builders_transfer.closed_form(builders_transfer.build_law(config, lambda: 0.1), np.array([noise]))
    assert float(row[1]) == pytest.approx(expected[0], abs=6e-4)


@pytest.mark.parametrize(("width", "times"), [(1.0, "1.8"), (0.1, "13")])
def test_how_much_a_robust_first_term_adds_is_said(width, times):
    config = plane3d.get_config("robust_fast")
    config.neighbours.huber_c = width
    assert f"up to {times} times as much" in builders_transfer.build_law(config, lambda: 0.1).told


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("evaluation.max_reference", 2, "config.evaluation.max_reference, or the data: need 4 examples"),
        ("robust.explained", 1.5, "config.robust.explained=1.5 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused_before_training_too(tmp_path, key, value, message):
    config = plane3d.get_config("robust_adaptive")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        run.run(config, tmp_path, "transfer")


def test_an_adaptive_weight_has_the_curve_of_the_cutoff_at_its_level():
    config, fixed = plane3d.get_config("robust_adaptive"), plane3d.get_config("robust_adv_cutoff")
    fixed.robust.cut = 0.07
    laws = builders_transfer.build_law(config, lambda: 0.07), builders_transfer.build_law(fixed, lambda: 1.0)
    gains = [builders_transfer.closed_form(law, STDS) for law in laws]
    np.testing.assert_allclose(*gains, rtol=1e-5)
    assert (laws[0].level, laws[1].level) == (0.07, None)


@pytest.mark.parametrize(("source", "level", "warns"), [(gaussian, 0.25, True), (plane3d, 0.1655, False)])
def test_a_level_near_the_scale_of_the_data_is_warned_of(tmp_path, caplog, source, level, warns):
    """Clean data of one scale have their level at half of it; a plane under noise of std 0.2 has this one."""
    config = source.get_config("robust_fast")
    config.data.stds, config.data.num_examples = (0.5,) * 5, 2000
    config.data.fraction, config.data.noise_std = (0.0, 0.1) if warns else (0.9, 0.2)
    data = builders_data.build_data(config)
    _, section = transfer_mode.measured(config, data, data.train, tmp_path, level)
    assert ("not well below the data's own scale" in caplog.text) == ("Warning" in section.text) == warns
