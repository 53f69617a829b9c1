"""The modes that judge a finished run for a purpose, on one small run of digits: their files, pages and refusals."""

import json
import shutil

import pytest

from advdiff_jax.builders.classifier import build_classifier, build_judged
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.modes import MODES, certify, purify, train
from advdiff_jax.sweep import compare
from configs import default, digits, plane3d


def config_of(mode="train", **values):
    config = digits.get_config("ddpm,tiny")
    config.train.update({"steps": 2, "warmup_steps": 1, "log_every": 1})
    config.network.update({"base_channels": 4, "channel_mults": (1,), "attention_resolutions": ()})
    config.sampling.update({"steps": 2, "batch_size": 1})
    config.evaluation.update({"num_samples": 8, "metrics": ("noise_energy",), "diagnostics": (), "grid": 4})
    config.data.held_out = 100
    config.purify.update({"attack_steps": 2, "draws": 2, "steps": 2, "examples": 6, "balls": ("linf",)})
    config.certify.update({"draws": 150, "noise_stds": (0.1,), "examples": 3, "batch_size": 100, "radii": (0.0, 0.2)})
    config.update_from_flattened_dict(values)
    return resolve(config, [], MODES, mode)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Workdir of a run."""
    path = tmp_path_factory.mktemp("run")
    train.run(config_of(), path)
    return path


def numbers_of(page):
    found = json.loads((page.parent / "results.json").read_text())
    assert all(output_of(name).meaning for name in found)
    return found


def test_purify_judges_the_run_beside_its_classifier_and_two_can_be_compared(finished, tmp_path, capsys):
    page = purify.run(config_of("purify"), finished)
    assert page == finished / "purify" / "report.html"
    found = numbers_of(page)
    assert found["purify_undefended_clean"] > 0.8  # a trained classifier, on images that it has not seen
    assert found["purify_undefended_linf_0.0314"] <= found["purify_undefended_clean"]
    assert {name.rpartition("_")[2] for name in found if "ddpm_linf_0.0314_t0.1" in name} == {*purify.COLUMNS}
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert "6 clean held-out examples" in page.read_text()
    assert "blind" in capsys.readouterr().out

    shutil.copytree(finished, tmp_path / "other")
    config = default.get_config()
    config.compare.runs = f"{finished / 'purify'},{tmp_path / 'other' / 'purify'}"
    joint = compare.run(config, tmp_path)
    assert "purify_ddpm_linf_0.0314_t0.1_fixed" in (joint.parent / "table.md").read_text()
    assert (joint.parent / "plots" / "curve_purify.png").exists()


def test_certify_writes_what_purify_may_read(finished):
    page = certify.run(config_of("certify"), finished)
    found = numbers_of(page)
    assert found["certify_undefended_0.1_0"] > 0.6
    assert found["certify_undefended_0.1_0"] >= found["certify_undefended_0.1_0.2"]
    assert 0.0 < found["certify_undefended_0.1_radius"] < 0.1 * 2.1  # all of 150 draws
    kept = page.parent / "classifier.safetensors"
    again = config_of("certify", **{"classifier.file": str(kept)})
    assert build_classifier(again, build_data(again)).classes == 10


def test_a_classifier_of_other_images_and_data_without_classes_are_refused(finished):
    config = config_of("purify")
    data = build_data(config)
    config = config_of("purify", **{"classifier.file": str(finished / "config.json")})
    with pytest.raises(UserError, match=r"config\.classifier: file='.*config\.json' cannot be read \(.*set a classifier\.safe"):
        build_classifier(config, data)
    points = resolve(plane3d.get_config("ddpm"))
    with pytest.raises(UserError, match=r"config\.data\.source=plane3d has no classes, which a classifier needs: set digits"):
        build_judged(points, build_data(points), 4)
