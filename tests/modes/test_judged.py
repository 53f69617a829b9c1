"""The modes that judge a finished run for a purpose, and the diagnostic `foreign`: files, pages and refusals, on digits."""

import functools
import json
import pathlib

import numpy as np
import optax
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders import foreign
from advdiff_jax.builders.anomaly import build_planted
from advdiff_jax.builders.classifier import build_classifier, build_judged
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnosis import DiagnosticInputs
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.levels import describe
from advdiff_jax.builders.noise_file import common_level
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import pixels
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.features import classifier
from advdiff_jax.modes import MODES, anomaly, certify, purify, sample
from advdiff_jax.noise import measure
from advdiff_jax.sweep import compare, run
from advdiff_jax.training import state
from advdiff_jax.training.checkpoint import Restored
from configs import default, digits, plane3d
from configs.ablations import common
from tests.processes import independent_gaussians

pytestmark = pytest.mark.usefixtures("unpainted")

VARIANCE = 0.5


def config_of(mode="train", **values):
    config = digits.get_config("ddpm,tiny")
    config.network.update({"base_channels": 4, "channel_mults": (1,), "attention_resolutions": ()})
    config.sampling.update({"method": "ddim", "steps": 3})
    config.data.update({"held_out": 100, "num_examples": 300})
    config.classifier.steps = 100
    config.purify.update({"attack_steps": 2, "draws": 1, "steps": 1, "examples": 20, "balls": ("linf",)})
    config.certify.update({"draws": 150, "noise_stds": (0.1,), "examples": 4, "batch_size": 100, "radii": (0.0, 0.2)})
    config.anomaly.update({"examples": 8, "levels": (0.3,), "draws": 1, "components": (4,)})
    config.update_from_flattened_dict(values)
    return resolve(config, [], MODES, mode)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run whose network is the exact eps_hat of independent pixels of variance VARIANCE, which compiles at once."""
    config = config_of()
    data, model = build_data(config), independent_gaussians(build_process(config).schedule, VARIANCE)
    experiment = build_experiment(config, data.train.shape[1:])._replace(predict=lambda params, x, t: model(x, t).eps)
    restored = Restored(state.create({}, optax.identity()), {})
    return sample.Opened(config, tmp_path_factory.mktemp("run"), data, experiment, restored)


@pytest.fixture(autouse=True)
def is_opened(opened, monkeypatch):
    monkeypatch.setattr(sample, "open_run", lambda config, folder: opened._replace(config=config))


def numbers_of(page):
    found = json.loads((page.parent / "results.json").read_text())
    assert all(output_of(name).meaning for name in found)
    return found


def test_purify_judges_a_run_beside_its_classifier_and_two_can_be_compared(opened, tmp_path, capsys):
    page = purify.run(config_of("purify"), opened.out)
    assert page == opened.out / "purify" / "report.html"
    found = numbers_of(page)
    assert found["purify_undefended_clean"] > 0.8  # a trained classifier, on images that it has not seen
    assert found["purify_undefended_linf_0.0314"] <= found["purify_undefended_clean"]
    assert {name.rpartition("_")[2] for name in found if "ddpm_linf_0.0314_t0.1" in name} == {*purify.COLUMNS}
    assert "20 clean held-out examples" in page.read_text()
    assert "blind" in capsys.readouterr().out

    (tmp_path / "a").symlink_to(opened.out)
    (tmp_path / "b").symlink_to(opened.out)
    config = default.get_config()
    config.compare.runs = f"{tmp_path / 'a' / 'purify'},{tmp_path / 'b' / 'purify'}"
    joint = compare.run(config, tmp_path)
    assert "purify_ddpm_linf_0.0314_t0.1_fixed" in (joint.parent / "table.md").read_text()
    assert (joint.parent / "plots" / "curve_purify.png").exists()


def test_certify_writes_a_classifier_that_is_read_for_images_of_its_shape(opened):
    found = numbers_of(page := certify.run(config_of("certify"), opened.out))
    assert found["certify_0.1_0"] > 0.5
    assert found["certify_0.1_0"] >= found["certify_0.1_0.2"]
    assert 0.0 < found["certify_0.1_radius"] < 0.1 * 2.1  # all of 150 draws
    kept = str(page.parent / "classifier.safetensors")
    again = config_of("certify", **{"classifier.file": kept})
    assert build_classifier(again, opened.data).classes == 10
    with pytest.raises(
        InvalidArgument, match=r"has params/Dense_0/kernel of shape \[1024, 64\], and images .* need \[4096, 64\]"
    ):
        classifier.read(kept, (16, 16, 1))


@pytest.mark.parametrize("mode", ["certify", "restore"])
def test_a_list_of_runs_has_one_page_of_what_a_mode_says_about_each(opened, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(sample, "open_run", lambda config, folder: opened._replace(config=config, out=folder))
    base = config_of(mode, **{"restore.images": "held_out", "restore.count": 10, "restore.method": "one_step"})
    base.certify.draws = 20
    settings = common.list_of_runs("pair", "Two of them.", base, {"huber": {"variant": "huber"}}, seeds=(2, 4), metrics=())
    with pytest.raises(UserError, match="no run of the list 'pair' is judged yet, and this shard has none"):
        run.run_all(settings, tmp_path, mode, "8/9")
    run.run_all(settings, tmp_path, mode, "0/2")
    both = run.run_all(settings, tmp_path, mode, "1/2")
    where = {"certify": pathlib.Path("certify"), "restore": pathlib.Path("restore/held_out-noise-one_step")}[mode]
    assert both == tmp_path / where / "report.html"
    joint = json.loads((tmp_path / where / "results.json").read_text())
    own = [json.loads((tmp_path / "huber" / f"seed_{seed}" / where / "results.json").read_text()) for seed in (2, 4)]
    name = {"certify": "certify_0.1_radius", "restore": "restore_one_step_psnr"}[mode]
    assert joint[f"huber/{name}"] == pytest.approx(np.mean([one[name] for one in own]))
    assert "Two of them." in both.read_text()
    assert "Means over seeds 2, 4" in both.read_text()

    # What is judged is skipped, unless a key that the mode may read is another; and such pages are not joined.
    monkeypatch.setattr(modes, "load", lambda mode: lambda config, folder: pytest.fail("it was judged before"))
    run.run_all(settings, tmp_path, mode, "0/1")
    settings.base.sampling.steps = 4
    with pytest.raises(pytest.fail.Exception, match="judged before"):
        run.run_all(settings, tmp_path, mode, "0/1")
    with pytest.raises(UserError, match="is judged yet"):
        run.run_all(settings, tmp_path, mode, "8/9")


def test_a_file_that_is_no_classifier_and_data_without_classes_are_refused(opened, tmp_path):
    workdir.write_json(tmp_path / "x.json", {})
    config = config_of("purify", **{"classifier.file": str(tmp_path / "x.json")})
    with pytest.raises(
        UserError, match=r"config\.classifier: file='.*x\.json' cannot be read \(.*set a classifier\.safetensors"
    ):
        build_classifier(config, opened.data)
    points = resolve(plane3d.get_config("ddpm"))
    with pytest.raises(UserError, match=r"config\.data\.source=plane3d has no classes, which a classifier needs: set digits"):
        build_judged(points, build_data(points), 4)


def test_anomaly_shows_images_truth_and_scores(opened):
    found = numbers_of(page := anomaly.run(config_of("anomaly"), opened.out))
    assert found["anomaly_share"] == pytest.approx(0.5 * 4 / 64)
    assert 0.0 <= found["anomaly_auroc"] <= 1.0
    assert any(name.startswith("anomaly_sampler_") for name in found)
    assert (page.parent / "plots" / "examples.png").exists()
    with pytest.raises(UserError, match=r"set config\.data\.held_out above 0"):
        build_planted(config_of("anomaly"), opened.data._replace(held_out=None))


def test_foreign_images_are_counted_and_named_for_another_run(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "small_cnn", functools.partial(foreign.small_cnn, steps=60))
    config = config_of(**{"data.corruptions": ("foreign_outlier",), "data.fraction": 0.1})
    data = build_data(config)
    crops = pixels.to_float(foreign.build_foreign(config.data, data.source.train)[np.arange(50)])
    samples = np.concatenate([data.held_out[:50], crops])

    # The loss of this linear eps_hat grows with the contrast of an image, which the crops lack.
    predict = functools.partial(opened.experiment.predict, {})
    found = foreign.SPEC.compute(config, DiagnosticInputs(samples, data, predict, None, tmp_path)).numbers
    assert found["foreign_share"] == pytest.approx(0.5, abs=0.05)
    assert found["foreign_nearest"] == pytest.approx(0.5, abs=0.1)
    assert found["foreign_share_dirty"] == pytest.approx(data.is_corrupted.mean(), abs=0.03)
    assert found["foreign_loss_auc"] < 0.3
    assert found["foreign_typicality_auc"] > 0.5
    levels = measure.load(tmp_path / foreign.FILE)
    assert np.sum(~levels.is_clean) == round(0.1 * len(data.train))
    np.testing.assert_allclose(np.mean(~levels.is_clean[data.is_corrupted]), found["foreign_found"])
    assert describe(levels) == "noise of 1,697 examples: 170 examples named as foreign by the loss of a model"
    assert common_level(levels) == 0.0  # no final step, and no penalty, takes a foreign image for noise
    ratios = np.linspace(0.0, 10.0, 101)
    assert levels.is_clean[Pairs(levels.used(), ratios, 5.0, seed=0).draw(0, 10_000)[0]].all()
    with pytest.raises(InvalidArgument, match=r"foreign counts the images of data\.corruptions=\('foreign_outlier',\) alone"):
        foreign.SPEC.compute(config_of(), DiagnosticInputs(samples, data, predict, None, tmp_path))
