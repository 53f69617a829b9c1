"""Measured noise in a run: what teaches what, and what the sampler learns of it."""

import numpy as np
import pytest

from advdiff_jax.builders import levels, noise_file, words
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.teaching import build_teaching
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.noise import measure
from configs import digits, plane3d


def config_of(variant, **values):
    config = digits.get_config(variant)
    config.update_from_flattened_dict(values)
    return resolve(config)


def of(std, is_clean):
    std = np.asarray(std, float)
    return measure.NoiseLevels(std, 0.1, np.asarray(is_clean), std, np.zeros(len(std)), "by hand")


MIXED = of([0.01] * 60 + [0.2] * 100, [True] * 60 + [False] * 100)
NO_CLEAN = of([0.2] * 50 + [0.3] * 50, [False] * 100)


def test_noisy_examples_teach_above_the_margin_and_clean_ones_everything(caplog):
    config = config_of("ambient_blind")
    schedule = build_process(config).schedule
    pairs = levels.build_pairs(config, schedule, MIXED)
    indices, quantiles = pairs.draw(0, 20_000)
    u = np.asarray(schedule.noise_to_signal(schedule.training_time(quantiles)))
    noisy = indices >= 60
    assert u[noisy].min() >= 5.0 * 0.2 * 0.99
    assert u[~noisy].min() < 0.05
    assert pairs.wasted == 0.0
    assert "60 clean ones do" in caplog.text or not caplog.text


def test_without_clean_examples_the_margin_falls_and_the_sampler_stops_at_the_lowest_level(tmp_path, caplog):
    config = config_of("ambient_blind", **{"noise.without_clean": "lowest"})
    assert levels.build_pairs(config, build_process(config).schedule, NO_CLEAN).wasted > 0.0
    assert "0 clean examples are too few" in caplog.text
    measure.save(tmp_path / noise_file.FILE, NO_CLEAN)
    found = levels.located(config, tmp_path)
    assert found.noise.file == str(tmp_path / noise_file.FILE)
    assert objective_spec(found).lowest_noise(found) == pytest.approx(1.05 * 0.2)
    assert objective_spec(config).lowest_noise(config) == 0.0


def test_without_clean_examples_the_noise_is_learnt_and_the_sampler_removes_it(tmp_path, caplog):
    config = config_of("ambient_blind", **{"data.fraction": 1.0})
    data = build_data(config)
    teaching = build_teaching(config, data, tmp_path)
    assert not teaching.noise_std(np.arange(1797)).any()  # the loss is that of plain denoising
    assert teaching.pairs.wasted == 0.0
    found = levels.located(config, tmp_path)
    assert f"removes it from samples, std {found.sampling.final_denoise:.3g} at most" in caplog.text
    assert found.sampling.final_denoise == pytest.approx(0.2, rel=0.1)
    assert found.sampling.final_own  # never more than the sample itself has
    removed = f"a final step that removes noise of std {found.sampling.final_denoise:g} at most, each sample's own"
    assert removed in words.describe_sampling(found)
    assert "final step" not in words.describe_sampling(config)  # before it is known
    assert objective_spec(found).lowest_noise(found) == 0.0
    given = config_of("ambient_blind", **{"sampling.final_denoise": 0.15})
    assert levels.located(given, tmp_path).sampling.final_denoise == 0.15
    for other in (
        config_of("ddpm"),
        config_of("ambient_blind", **{"noise.without_clean": "lowest"}),
        config_of("ambient_blind", **{"sampling.final_denoise": 0.0}),  # the noise is wanted
        config_of("discard_blind", **{"sampling.final_denoise": "learnt"}),  # it learns none
    ):
        assert levels.located(other, tmp_path).sampling.final_denoise == 0.0


def test_examples_that_are_left_out_teach_nothing_also_where_the_noise_is_learnt():
    config = config_of("ambient_blind")
    some = of([0.2] * 50 + [np.inf] * 50, [False] * 100)
    assert set(noise_file.taught(config, some)) == {0.0, np.inf}
    indices, _ = levels.build_pairs(config, build_process(config).schedule, some).draw(0, 1000)
    assert indices.max() < 50


@pytest.mark.parametrize("index", [0, 1])
def test_every_process_opens_the_model_that_measures_again(tmp_path, monkeypatch, index):
    """A checkpoint is read by all processes together, so that a process which does not read it would stop the others."""
    opened = []
    monkeypatch.setattr(levels.jax, "process_index", lambda: index)
    monkeypatch.setattr(levels.parallel, "barrier", lambda name: None)
    monkeypatch.setattr(levels.model_reading, "build_reader", lambda model, *rest: model)
    monkeypatch.setattr(levels.model_reading, "read_all", lambda reader, train: None)
    monkeypatch.setattr(levels.measure, "measure", lambda *args: MIXED)
    config = config_of("ambient_blind")
    levels.measure_again(config, build_data(config), tmp_path, lambda: opened.append(1), step=7)
    assert opened == [1]
    assert (tmp_path / noise_file.FILE).exists() == (index == 0)


def test_discarding_everything_is_refused():
    config = config_of("discard_blind")
    with pytest.raises(UserError, match=r"objective=discard_blind: no example may teach"):
        levels.build_pairs(config, build_process(config).schedule, NO_CLEAN, discard=True)


def test_an_adaptive_weight_ends_at_half_of_the_level_that_is_found_at_least(tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of("robust_adaptive")
    found = levels.measured(config, build_data(config), tmp_path)
    level = noise_file.common_level(measure.load(tmp_path / noise_file.FILE))
    assert noise_file.followed_floor(found, 0.01) == pytest.approx(0.5 * level)
    assert noise_file.followed_floor(found, level) == pytest.approx(level)
    assert f"ends at 0.5 of that std, {0.5 * level:.3g}, at least" in caplog.text
    assert noise_file.followed_floor(config, 0.01) == pytest.approx(0.01)  # before anything is measured
    given = {"noise.file": str(tmp_path / noise_file.FILE)}
    assert noise_file.followed_floor(config_of("robust_adv", **given), 0.01) == 0.01
    alone = config_of("robust_adaptive", **given, **{"robust.floor": "data", "robust.start_step": 0})  # nothing to train first
    assert noise_file.followed_floor(alone, level) == pytest.approx(0.5 * level)
    trained = config_of("robust_adaptive", **{"robust.floor": "trained"})
    assert levels.measured(trained, build_data(trained), tmp_path / "none").noise.file == ""


def test_a_penalty_that_follows_the_data_says_where_it_ends_also_of_points(tmp_path, caplog):
    caplog.set_level("INFO")
    config = resolve(plane3d.get_config("robust_adaptive"))
    config.unlock()
    config.robust.update({"floor": "data", "start_step": 0})
    found = levels.measured(config, build_data(config), tmp_path)
    floor = noise_file.followed_floor(found, None)
    assert floor == pytest.approx(0.5 * noise_file.common_level(measure.load(tmp_path / noise_file.FILE)))
    assert floor > 0.0
    assert f"robust.floor=data: the penalty ends at 0.5 of that std, {floor:.3g}" in caplog.text
    levels.say_floor(config, 0.0)
    assert "no noise is found, so the penalty has no weight and costs its evaluations" in caplog.text
    caplog.clear()
    levels.say_floor(config_of("robust_adv"), 0.0)  # its weight follows nothing
    assert not caplog.text


def test_where_no_noise_is_found_the_floor_is_that_of_plain_training_alone(tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of("robust_adaptive", **{"data.fraction": 0.0})
    assert noise_file.followed_floor(levels.measured(config, build_data(config), tmp_path), 0.01) == pytest.approx(0.01)
    assert caplog.text.rstrip().endswith("follows the floor that plain training measures")
    points = resolve(plane3d.get_config("robust_adaptive"))
    assert levels.measured(points, build_data(points), tmp_path / "none").noise.file == ""


def test_the_noise_is_measured_again_unless_the_user_gives_it_or_an_example_has_too_few_numbers(caplog):
    config = config_of("ambient_blind", **{"train.steps": 101, "noise.again_share": 1.2})  # one draw of each costs 1.17
    data = build_data(config)
    assert levels.step_of_again(config, data, MIXED) == 50
    assert levels.step_of_again(config, data, NO_CLEAN) == 0  # nothing calibrates the model's reading
    caplog.set_level("INFO")
    assert levels.step_of_again(config_of("ambient_blind", **{"train.steps": 101}), data, MIXED) == 0
    assert "would take 11,391 network evaluations, more than config.noise.again_share=0.05 of the run's" in caplog.text
    assert levels.step_of_again(config_of("ambient_blind", **{"noise.file": "given.npz"}), data, MIXED) == 0
    points = resolve(plane3d.get_config("ambient_blind"))
    assert levels.step_of_again(points, build_data(points), MIXED) == 0


def test_levels_are_measured_once_kept_with_the_run_and_refused_for_other_data(tmp_path):
    config = config_of("ambient_blind")
    data = build_data(config)
    first = build_teaching(config, data, tmp_path)
    kept = measure.load(tmp_path / noise_file.FILE)
    np.testing.assert_array_equal(kept.std, first.levels.std)
    assert np.mean(first.noise_std(np.arange(1797)) > 0.0) == pytest.approx(0.9, abs=0.02)
    measure.save(tmp_path / noise_file.FILE, kept._replace(words="kept"))
    assert build_teaching(config, data, tmp_path).levels.words == "kept"
    measure.save(tmp_path / "of_others.npz", MIXED)
    other = config_of("ambient_blind", **{"noise.file": str(tmp_path / "of_others.npz")})
    with pytest.raises(UserError, match=r"of_others\.npz has the noise of 160 examples, and the training set has 1,797"):
        build_teaching(other, data)
    missing = config_of("ambient_blind", **{"noise.file": str(tmp_path / "missing.npz")})
    with pytest.raises(UserError, match=r"config\.noise: \S+missing\.npz is no file of --mode=noise"):
        build_teaching(missing, data)


def test_a_file_of_another_draw_of_the_dirt_is_refused(tmp_path):
    """It has as many examples, and the noise of each is another's."""
    config = config_of("ambient_blind")
    path = tmp_path / "noise.npz"
    measure.save(path, measure.measure(build_data(config).train, 0))
    again = config_of("ambient_blind", **{"noise.file": str(path)})
    assert levels.build_levels(again, build_data(again)).data
    other = config_of("ambient_blind", **{"noise.file": str(path), "seed": 1, "data.seed": 1})
    with pytest.raises(UserError, match=r"noise\.file=.* has the noise of other examples: of another config\.data\.seed"):
        levels.build_levels(other, build_data(other))
