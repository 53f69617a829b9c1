"""The diagnostics attack, few_steps and local_gain on a model that is known exactly: numbers, files, and one-line mistakes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders import attack, distance
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs, output_of
from advdiff_jax.builders.draw import build_draw, example_keys
from advdiff_jax.builders.metrics import true_distribution
from advdiff_jax.builders.process import SAMPLERS, build_process, build_sampler
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion import exact
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation.ground_truth import wasserstein2
from advdiff_jax.sampling.sample import sample
from configs import default, plane3d
from tests.processes import ALL


def config_of(**overrides):
    config = default.get_config("ddpm")
    config.data.update({"source": "gaussian", "stds": (0.2, 0.5), "num_examples": 400, "fraction": 0.0})
    config.evaluation.metrics = ("wasserstein",)
    config.evaluation.attack.update({"steps": 4, "examples": 6, "batch_size": 4, "kappas": (0.1, 0.5), "pgd_steps": (12,)})
    config.evaluation.attack.update({"threats": ("start",), "objectives": ("end",), "balls": ("l2",)})
    config.evaluation.few_steps.update({"samplers": ("ddim", "heun"), "steps": (4, 20), "num_samples": 300})
    config.update_from_flattened_dict({f"evaluation.{key}": value for key, value in overrides.items()})
    return resolve(config)


def exact_prediction(config):
    denoise = exact.denoiser(true_distribution(config), build_process(config).schedule)
    return lambda x, t: denoise(x, t).eps


def diagnose(name, config, folder, predict=None):
    data = build_data(config)
    inputs = DiagnosticInputs(data.train[:20], data, predict or exact_prediction(config), None, folder)
    return DIAGNOSTICS[name].compute(config, inputs)


def test_an_attack_on_the_exact_model_is_the_closed_form_and_passes_its_checks(tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of()
    diagnosis = diagnose("attack", config, tmp_path)
    settings = attack.build_settings(config, exact_prediction(config))
    first = f"attack: {attack.evaluations(config, settings):,} network evaluations, on 6 examples under 1 threats"
    assert first in caplog.messages[0]  # before it begins
    path, schedule = settings[0].target.path, build_process(config).schedule
    end = jax.jit(
        jax.jacfwd(lambda x: sample(path.denoise, jax.random.split(jax.random.key(0), 1), x[None], path.times, path.step)[0])
    )
    gain = np.linalg.norm(end(jnp.zeros(2)), 2)
    for kappa in (0.1, 0.5):
        expected = kappa * float(schedule.sigma(1.0)) * gain
        assert diagnosis.numbers[f"attack_ddim_l2_start_{kappa}"] == pytest.approx(expected, rel=0.05)
        assert diagnosis.numbers[f"attack_ddim_l2_start_{kappa}_max"] <= 1.001 * expected
    assert diagnosis.numbers["attack_checks_failed"] == 0.0
    assert diagnosis.numbers["attack_ddim_spread"] > 0.0
    assert diagnosis.warning == ""
    assert {f"attack_ddim_l2_start_{kappa}_w2" for kappa in (0, 0.1, 0.5)} < {*diagnosis.numbers}
    assert all(output_of(name).meaning for name in diagnosis.numbers)
    assert "of the attacked samples" in output_of("attack_ddim_l2_start_0.5_w2").meaning
    (section,) = diagnosis.sections
    assert section.pre.count("holds") == 3
    panels = json.loads((tmp_path / "attack.json").read_text())["panels"]
    assert panels[0]["series"]["start, pgd12"]["x"] == [0.1, 0.5]
    assert panels[1]["series"]["start, ddim_l2"]["x"] == [0.0, 0.1, 0.5]


def test_a_model_that_masks_its_gradient_fails_the_checks(tmp_path):
    """A shift along the first axis moves its samples far along the second, which its gradient hides.

    What an ascent sees is the shift of the samples itself. It follows it to the second axis, which moves nothing, so that noise
    does better by far.
    """
    config = config_of(**{"attack.kappas": (0.5,), "attack.pgd_steps": (4,)})
    predict = exact_prediction(config)
    sheared = lambda x, t: predict(x, t) + 5.0 * jnp.stack([jnp.zeros(len(x)), x[:, 0]], axis=1)
    diagnosis = diagnose("attack", config, tmp_path, lambda x, t: jax.lax.stop_gradient(sheared(x, t)))
    assert diagnosis.numbers["attack_checks_failed"] >= 1.0
    assert "checks fail, the first: ddim_l2_start: pgd4 >= fgsm >= random, not at kappa=0.5" in diagnosis.warning


def test_the_protocol_has_every_threat_sampler_and_ball():
    config = plane3d.get_config("ddpm")
    default.full_attack(config)
    config = resolve(config)
    settings = attack.build_settings(config, lambda x, t: x)
    assert len(settings) == 3 * 2 * 5
    assert {"ddim_linf_start", "ddpm_l2_t0.25", "fresh_ddpm_linf_every"} <= {one.name for one in settings}
    assert [one.fresh for one in settings] == [False] * 20 + [True] * 10
    assert attack.evaluations(config, settings) > 100 * attack.evaluations(
        resolve(plane3d.get_config("ddpm")), attack.build_settings(resolve(plane3d.get_config("ddpm")), lambda x, t: x)
    )


def test_few_steps_are_the_metric_of_the_runs_own_samples(tmp_path):
    config = config_of()
    diagnosis = diagnose("few_steps", config, tmp_path)
    assert {*diagnosis.numbers} == {f"few_steps_{name}" for name in ("ddim_4", "ddim_20", "heun_7", "heun_39")}
    panel = json.loads((tmp_path / "few_steps.json").read_text())["panels"][0]
    assert panel["series"]["heun"]["x"] == [7, 39]
    own = config.copy_and_resolve_references()
    own.unlock().sampling.update({"method": "ddim", "steps": 20})
    samples = build_draw(own, build_process(own), (2,))(exact_prediction(config), example_keys(0, 300))
    data, rng = build_data(config), np.random.default_rng(config.evaluation.seed)
    expected = wasserstein2(np.asarray(samples), data.source.clean(rng, 300))
    assert diagnosis.numbers["few_steps_ddim_20"] == pytest.approx(expected, rel=1e-4)
    table = diagnosis.sections[0].table
    assert table[0] == ("sampler", "steps", "network evaluations", "w2")
    assert len(table) == 5


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("few_steps", {"few_steps.samplers": ("ode",)}, r"few_steps\.samplers: ode chooses its own steps: leave it out; ddpm"),
        (
            "few_steps",
            {"few_steps.metric": "w3"},
            r"metric='w3' is no number of config\.evaluation\.metrics",
        ),
        ("few_steps", {"metrics": ("likelihood",)}, r"few_steps\.metric='': config\.evaluation\.metrics has no distance"),
        ("few_steps", {"few_steps.steps": (4, 2000)}, r"few_steps\.steps=2000: .*num_steps=2000 must be in \[1, 1000\]"),
        ("few_steps", {"few_steps.steps": ()}, r"few_steps\.steps=\(\) leaves no point to draw: set one at least"),
        ("attack", {"attack.kappas": ()}, r"attack\.kappas=\(\) names nothing to attack with: set one at least"),
        (
            "attack",
            {"attack.huge": 0.4},
            r"attack\.huge=0\.4 must exceed all of config\.evaluation\.attack\.kappas=\(0\.1, 0\.5\)",
        ),
        ("attack", {"attack.steps": 2000}, r"^config\.evaluation\.attack\.steps=2000: .*num_steps=2000 must be in \[1, 1000\]"),
    ],
)
def test_mistakes_are_one_line(tmp_path, name, overrides, message):
    with pytest.raises(UserError, match=message):
        diagnose(name, config_of(**overrides), tmp_path)


def test_a_distance_that_these_samples_do_not_have_is_left_out_with_its_reason(monkeypatch):
    config = config_of(metrics=("score_error", "wasserstein"))
    monkeypatch.setattr(distance, "HEADLINES", {"score_error": "score_error", "wasserstein": "w2"})
    data = build_data(config)
    found, reasons = distance.first_distance(config, data, data.train[:20])
    assert found.name == "w2"
    assert len(reasons) == 1
    assert reasons[0].startswith("score_error is left out: ")


def test_the_local_gain_of_the_exact_model(tmp_path):
    config = config_of(**{"local_gain.levels": 5, "local_gain.iterations": 40})
    numbers = diagnose("local_gain", config, tmp_path).numbers
    panel = json.loads((tmp_path / "local_gain.json").read_text())["panels"][0]
    line = panel["series"]["ddpm"]
    u = np.array(line["x"])
    alpha = 1.0 / np.hypot(1.0, u)
    np.testing.assert_allclose(line["y"], 0.5**2 / (0.5**2 + u**2) / alpha, rtol=0.01)
    assert numbers["local_gain"] == pytest.approx(max(line["y"]), rel=1e-6)


@pytest.mark.parametrize("method", [name for name, spec in SAMPLERS.items() if spec.evaluations])
def test_the_evaluations_of_a_sampler_are_those_that_it_makes(method):
    made, config = [], plane3d.get_config("ddpm")
    config.sampling.update({"method": method, "steps": 6, "corrections": 2})
    denoise = exact.denoiser(exact.gaussian(np.zeros(2), np.eye(2)), ALL["ddpm_grid"])

    def counted(x, t):
        jax.debug.callback(lambda: made.append(1))
        return denoise(x, t)

    solve = jax.jit(
        lambda: build_sampler(config, ALL["ddpm_grid"])(counted, jax.random.split(jax.random.key(0), 3), jnp.ones((3, 2)))
    )
    jax.block_until_ready(solve())
    jax.effects_barrier()
    assert len(made) == SAMPLERS[method].evaluations(config.sampling, 6)
