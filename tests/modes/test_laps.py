"""EM on points and digits: laps are runs, draws are data sets, and what was killed goes on."""

import json
import logging
import shutil

import jax
import numpy as np
import pytest

from advdiff_jax import workdir
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.modes import e_step, evaluate, laps, train
from advdiff_jax.training.checkpoint import restore_latest
from configs import plane3d

pytestmark = pytest.mark.usefixtures("unpainted")


def small(variant="em", **overrides):
    config = plane3d.get_config(variant)
    config.data.num_examples = 300
    config.data.noise_std = 0.3
    config.network.update({"width": 8, "depth": 1})
    config.train.update({"steps": 6, "batch_size": 64, "warmup_steps": 1, "log_every": 6})
    config.sampling.update({"steps": 5, "batch_size": 8})  # 64 on eight devices: five blocks of draws
    config.em.update({"laps": 1, "steps": 4})
    config.evaluation.update({"num_samples": 64, "diagnostics": (), "metrics": ("plane",), "field_levels": ()})
    config.update_from_flattened_dict(overrides)
    return resolve(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, workdir) of a run: a first model and a lap."""
    config, path = small(), tmp_path_factory.mktemp("em") / "run"
    assert train.run(config, path) == path / "report.html"
    return config, path


def draws(path, lap):
    return np.load(path / "laps" / str(lap) / "draws.npy")


def params(config, path):
    return restore_latest(path, build_experiment(config, (3,)).init, build_experiment(config, (3,)).optimizer).state.ema_params


def test_every_lap_is_a_run_and_its_draws_a_data_set(finished):
    config, path = finished
    data, found = build_data(config), draws(path, 0)
    assert (found.shape, found.dtype) == (data.train.shape, data.train.dtype)
    assert np.all(np.any(found != data.train, axis=1))
    assert workdir.is_trained(path / "laps" / "0")
    stored = [workdir.read_config(one / "config.json") for one in (path / "laps" / "0", path)]
    assert [one["objective"] for one in stored] == ["denoising", "em"]


def test_the_results_count_what_all_laps_and_their_draws_cost(finished):
    config, path = finished
    results = json.loads((path / "results.json").read_text())
    assert results["network_evaluations"] == 2 * (3 * 6 * 64) + 4 * 300
    page = (path / "report.html").read_text()
    assert ">Laps</h2>" in page
    assert (path / "plots" / "laps.png").exists()
    evaluate.run(config, path)
    assert json.loads((path / "results.json").read_text()) == results


def test_more_steps_of_a_finished_run_are_refused_because_its_laps_drew_with_other_models(finished):
    _, path = finished
    longer = small(**{"train.steps": 8})
    with pytest.raises(UserError, match=r"train\.steps=8: .*its laps drew with models of fewer steps"):
        train.run(longer, path)
    assert (path / "results.json").exists()


def test_the_next_lap_starts_from_the_model_before(finished, tmp_path):
    """Without a learning rate it stays that model."""
    before = finished[1] / "laps" / "0"
    config = small("ddpm", **{"train.learning_rate": 1e-30})
    train.train_lap(config, tmp_path / "run", laps.Lap(np.zeros((9, 3), np.float32), before))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params(config, tmp_path / "run"), params(config, before)
    )


class Trained:
    """Stands for training: notes what laps would train on, and gives them the model of a folder."""

    def __init__(self, model=None):
        self.laps, self.numbers, self._model = [], [], model

    def __call__(self, config, folder, lap):
        self.laps.append(lap)
        self.numbers.append(config.em.laps)
        folder.mkdir(parents=True, exist_ok=True)
        if self._model:
            shutil.copytree(self._model / "checkpoints", folder / "checkpoints")
        workdir.write_json(folder / "results.json", {"w2": 1.0})
        return folder / "report.html"


def test_a_killed_e_step_goes_on_and_ends_as_if_it_had_not(finished, tmp_path, monkeypatch):
    """With the model of `init_from`, which no lap trains again."""
    model = finished[1] / "laps" / "0"
    config, write, blocks = small(**{"em.laps": 2, "init_from": str(model)}), e_step._File.write, []

    def killed(self, rows, found, progress):
        if len(blocks) == 2:
            raise KeyboardInterrupt
        blocks.append(rows)
        write(self, rows, found, progress)

    def noted(self, rows, found, progress):
        blocks.append(rows)
        write(self, rows, found, progress)

    trained, path = Trained(model), tmp_path / "run"
    monkeypatch.setattr(e_step._File, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        laps.run(config, path, trained)
    assert not (path / "laps" / "0" / "draws.npy").exists()
    assert json.loads((path / "laps" / "0" / "draws.json").read_text())["drawn"] == 128
    monkeypatch.setattr(e_step._File, "write", noted)
    laps.run(config, path, trained)
    np.testing.assert_array_equal(np.concatenate(blocks[:5]), np.arange(300))
    np.testing.assert_array_equal(draws(path, 0), draws(finished[1], 0))
    second, last = trained.laps
    np.testing.assert_array_equal(second.examples, draws(path, 0))
    assert second.before is None  # `init_from` says it
    np.testing.assert_array_equal(last.examples, draws(path, 1))
    assert not np.array_equal(draws(path, 0), draws(path, 1))  # of one model: each lap draws anew
    assert trained.numbers == [1, 2]


def test_blind_em_draws_the_noisy_examples_and_keeps_the_others(finished, tmp_path, caplog):
    """A measured level in place of a given one; the start is a model of the clean examples."""
    path, trained = tmp_path / "run", Trained(finished[1] / "laps" / "0")
    config = small("em_blind", **{"em.start": "clean", "data.fraction": 0.5, "data.noise_std": 0.05})
    with caplog.at_level(logging.INFO):
        laps.run(config, path, trained)
    data, found = build_data(config), draws(path, 0)
    with np.load(path / "noise.npz") as measured:
        clean = measured["is_clean"]
    assert 0 < clean.sum() < 300
    start, last = trained.laps
    np.testing.assert_array_equal(start.examples[np.arange(clean.sum())], data.train[clean])
    np.testing.assert_array_equal(last.examples, found)
    np.testing.assert_array_equal(found[clean], data.train[clean])
    assert np.all(np.any(found[~clean] != data.train[~clean], axis=1))
    assert f"EM, start: {clean.sum()} of 300 examples are clean" in caplog.text
    assert f"draws {300 - clean.sum()} examples; {clean.sum()} clean ones stay as they are" in caplog.text


def test_em_starts_from_a_gaussian(tmp_path):
    config, trained = small(**{"em.laps": 1, "em.start": "gaussian"}), Trained()
    laps.run(config, tmp_path / "run", trained)
    normal = np.ones(3) / np.sqrt(3)
    found, dirty = (np.std(x @ normal) for x in (trained.laps[0].examples, build_data(config).train))
    assert found < 0.5 * dirty  # a hundred laps of the fit: (2 k)^(-1/4) is 0.27
