"""`--mode=gain`: prints and draws the closed form, of one config or of a list, and claims no run."""

import json

import numpy as np
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.gain import build_closed_form, gain_curve
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.modes import gain
from advdiff_jax.sweep.run import run_all
from configs import plane3d
from configs.ablations.common import list_of_runs


def config_of(variant, **overrides):
    config = plane3d.get_config(variant)
    config.sampling.update({"method": "dpm_solver_2m", "grid": "log_snr", "steps": 20})  # without noise: two points suffice
    config.update_from_flattened_dict(overrides)
    return resolve(config)


def row_of(text, first):
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def test_the_mode_prints_and_writes_and_claims_no_run(tmp_path, capsys):
    config = resolve(plane3d.get_config("robust_adv"))
    page = gain.run(config, tmp_path / "run")
    assert page == tmp_path / "run" / "gain" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {"gain.png", "gain.json", "report.html"}
    row = row_of(capsys.readouterr().out, "0.2")
    assert float(row[1]) == pytest.approx(0.26, abs=0.005)  # the paper's FGSM, lambda 0.3, by another program
    assert float(row[2]) == pytest.approx(0.298, abs=0.005)  # as sampled, by ddpm in 250 steps
    numbers = json.loads((page.parent / "gain.json").read_text())
    assert numbers["noise_std"] == 0.1
    numbers = numbers["plane3d:robust_adv"]
    np.testing.assert_allclose(np.array(numbers["share"]), 1 - 1 / (1 + np.array(numbers["kappa"])), rtol=1e-5)
    assert numbers["radius"][0] == pytest.approx(8 / 255, rel=0.01)
    assert workdir.claim(config, tmp_path / "run", evaluate_only=False, previews=modes.PREVIEWS) == tmp_path / "run"


def test_no_penalty_is_said_and_no_closed_form_is_refused(tmp_path, capsys):
    gain.run(config_of("ddpm"), tmp_path)
    assert "no penalty: every direction keeps its standard deviation, the gain is 1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config\.objective='at_diff' has no closed form of the gain"):
        gain.run(config_of("at_diff"), tmp_path)


def test_a_list_of_runs_is_one_figure(tmp_path, capsys, caplog):
    runs = {
        "a": {"variant": "robust_adv"},
        "same": {"variant": "robust_adv", "data": {"fraction": 0.0}},
        "b": {"variant": "robust_ran", "robust": {"ball": "l2", "lam": 0.1}},
        "c": {"variant": "at_diff"},
    }
    config = list_of_runs("x", "", plane3d.get_config(), runs, seeds=(0, 1), metrics=("w2",))
    page = run_all(config, tmp_path, "gain", "0/1")
    assert page == tmp_path / "gain" / "report.html"
    numbers = json.loads((page.parent / "gain.json").read_text())
    assert numbers.keys() == {"a (and 1 more)", "b", "noise_std"}
    assert numbers["noise_std"] is None  # not the same in all runs
    heads, first, _ = capsys.readouterr().out.strip().splitlines()
    at = heads.split().index("T(0.2)") - len(heads.split())
    assert float(first.split()[at]) == pytest.approx(0.26, abs=0.005)
    assert "Without a closed form: c." in page.read_text()
    assert "c: config.objective='at_diff' has no closed form" in caplog.text
    config = list_of_runs("x", "", plane3d.get_config(), {"c": {"variant": "at_diff"}}, seeds=(0,), metrics=("w2",))
    with pytest.raises(UserError, match=r"no run of the list x has a closed form of the gain: set another variant, or train"):
        run_all(config, tmp_path, "gain", "0/1")


@pytest.mark.parametrize("noise", [0.003, 5.0])
def test_the_gain_of_noise_beyond_the_table_is_its_own(tmp_path, capsys, noise):
    config = config_of("robust_adv", **{"data.noise_std": noise})
    gain.run(config, tmp_path)
    row = row_of(capsys.readouterr().out, f"{noise:g}")
    expected = gain_curve(build_closed_form(config, lambda: 0.1), np.array([noise]))
    assert float(row[1]) == pytest.approx(expected[0], abs=6e-4)


def test_an_adaptive_weight_follows_the_noise_floor_of_a_linear_model_of_the_data(tmp_path, capsys):
    gain.run(config_of("robust_adaptive", **{"data.num_examples": 5000}), tmp_path)
    text = capsys.readouterr().out
    # Two of three directions hold the square: q(u) = (2 u^2 / (u^2 + 0.34) + u^2 / (u^2 + 0.009)) / 3 is 0.2 at u = 0.103.
    assert "weight adaptive (cut at 0.10" in text
    assert "A linear model would measure that level on these data" in text
    config = config_of("robust_adaptive")
    config.unlock()
    config.evaluation.max_reference = 2
    with pytest.raises(UserError, match=r"config\.evaluation\.max_reference, or the data: "):
        gain.run(config, tmp_path)
