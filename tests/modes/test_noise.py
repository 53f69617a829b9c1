"""`--mode=noise`: the files, the page and the line; and a run that trains by what it measures, stopped and sampled again."""

import json

import numpy as np
import pytest

from advdiff_jax.builders import levels, model_reading, noise_file
from advdiff_jax.builders.validate import resolve
from advdiff_jax.modes import MODES, noise, sample, train
from advdiff_jax.noise import measure
from advdiff_jax.training.log import read_metrics
from configs import digits

pytestmark = pytest.mark.usefixtures("unpainted")


def config_of(variant, **values):
    config = digits.get_config(f"{variant},tiny")
    config.network.update({"base_channels": 4, "channel_mults": (1,), "res_blocks": 1, "attention_resolutions": ()})
    config.update_from_flattened_dict({"data.num_workers": 0, "evaluation.metrics": (), "evaluation.diagnostics": (), **values})
    return resolve(config, [], MODES)


def test_the_page_shows_levels_examples_and_the_truth(tmp_path, caplog):
    caplog.set_level("INFO")
    report = noise.run(config_of("ddpm"), tmp_path)
    assert report == tmp_path / "noise" / "report.html"
    page = report.read_text()
    found = measure.load(tmp_path / "noise" / noise_file.FILE)
    share = np.mean(~found.is_clean)
    assert share == pytest.approx(0.9, abs=0.02)
    assert f"{share:.1%} are noisy" in caplog.text
    assert f"{share:.1%} are noisy" in page
    for name in ("clean_share", "auc", "clean_called_noisy", "noisy_called_clean", "std_over_truth", "--config.noise.file="):
        assert name in page
    assert "rank_correlation" not in page  # one level has no ranks
    assert page.count("data:image/png") == 4
    assert not (tmp_path / "config.json").exists()  # no run is claimed


def test_clean_data_are_said_to_be_clean(tmp_path, caplog):
    caplog.set_level("INFO")
    page = noise.run(config_of("ddpm", **{"data.fraction": 0.0}), tmp_path).read_text()
    assert "nothing found" in caplog.text
    assert "Beside the truth" not in page


def test_a_run_without_clean_examples_samples_down_to_its_lowest_level_each_time(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(model_reading, "DIMENSIONS", 1)  # one draw
    values = {
        "data.fraction": 1.0,
        "train.steps": 12,
        "evaluation.num_samples": 30,
        "noise.without_clean": "lowest",
    }
    config = config_of("ambient_blind", **values)
    train.run(config, tmp_path)
    assert "clean examples are too few" in caplog.text
    assert measure.load(tmp_path / noise_file.FILE).step == 0  # nothing calibrates the model's reading
    first = np.load(tmp_path / "samples" / "step_12.npy").copy()
    assert noise_file.lowest_level(levels.located(config, tmp_path)) == pytest.approx(1.05 * 0.2, rel=0.1)
    sample.run(config, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "samples" / "step_12.npy"), first)
    assert json.loads((tmp_path / "config.json").read_text())["noise"]["file"] == ""


def test_a_run_measures_again_half_way_and_its_penalty_follows_what_it_finds(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(model_reading, "DIMENSIONS", 1)  # one draw
    values = {
        "train.steps": 12,
        "robust.group_size": 2,
        "noise.again_share": 1e3,
        "train.sample_every": 6,
        "train.sample_count": 8,
    }
    monkeypatch.setattr(train.evaluate, "evaluate_run", lambda *args: None)
    train.run(config_of("ambient_blind_adv", **values), tmp_path)
    kept = measure.load(tmp_path / noise_file.FILE)
    assert (kept.step, kept.evaluations) == (6, model_reading.cost(len(kept.std), 1))
    floor = 0.5 * noise_file.common_level(kept)
    assert f"robust.floor=data: the penalty ends at 0.5 of that std, {floor:.3g}" in caplog.text
    assert read_metrics(tmp_path)[-1]["penalty"] > 0.0
    assert (tmp_path / "samples" / "step_6.png").exists()  # in the middle of a run there are samples
    assert "final step" not in caplog.text  # clean examples teach it the clean law


def test_the_final_step_removes_what_was_measured_and_the_model_of_a_run_reads_too(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(model_reading, "DIMENSIONS", 1)  # one draw
    plain = {"train.steps": 12, "evaluation.num_samples": 30}
    train.run(config_of("ddpm", **plain), tmp_path)
    given = config_of("ddpm", **plain, **{"sampling.final_denoise": "measured"})
    sample.run(given, tmp_path)
    level = noise_file.common_level(measure.load(tmp_path / noise_file.FILE))
    assert level == pytest.approx(0.2, rel=0.1)
    assert f"removes noise of std {level:.3g}" in caplog.text
    by_number = config_of("ddpm", **plain, **{"sampling.final_denoise": level})
    sample.run(by_number, tmp_path)
    found = [np.load(path) for path in sorted((tmp_path / "evaluations").glob("*/samples/step_12.npy"))]
    assert len(found) == 2
    np.testing.assert_array_equal(*found)
    page = noise.run(given, tmp_path).read_text()
    assert f"the model of {tmp_path} reads the noise too" in caplog.text
    assert "auc_harder" in page
    found, without = (measure.load(tmp_path / "noise" / name) for name in (noise_file.FILE, noise.ATYPICAL))
    left_out = np.isinf(without.std)
    assert left_out.sum() == round(0.05 * 1797)
    np.testing.assert_array_equal(without.used()[~left_out], found.used()[~left_out])
    assert f"the {left_out.sum()} most atypical examples teach nothing too" in page
    assert "auc_atypical" in page
    assert page.count("data:image/png") == 6
