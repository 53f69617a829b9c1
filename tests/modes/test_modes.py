"""The modes that look at data, and a whole run on images that are read, corrupted and mirrored by a worker process."""

import importlib
import json

import numpy as np
import pytest
from PIL import Image

from advdiff_jax import modes, workdir
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import photos, record_dataset
from advdiff_jax.errors import UserError
from advdiff_jax.modes import evaluate, poison, prepare, preview, restore, sample, train
from advdiff_jax.sweep.run import run_all
from benchmarks.data import raw_cifar10
from configs import cifar10, digits, image_folder, plane3d
from configs.ablations.common import list_of_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 images as files."""
    path = tmp_path_factory.mktemp("images")
    for i, image in enumerate(photos.photo_crops(48, 0, 16)):
        Image.fromarray(image).save(path / f"{i:03d}.png")
    return path


def on_folder(folder, **overrides):
    config = image_folder.get_config("ddpm,tiny")
    config.data.update({"path": str(folder), "size": 16, "num_workers": 1, "read_ahead": 2, "fraction": 0.9})
    config.network.update({"base_channels": 4, "channel_mults": (1,), "res_blocks": 1, "attention_resolutions": ()})
    config.train.update({"steps": 4, "log_every": 2, "warmup_steps": 1})
    config.sampling.update({"steps": 2, "batch_size": 2})
    config.evaluation.update({"num_samples": 16, "grid": 16, "diagnostics": (), "metrics": ("memorization",)})
    config.update_from_flattened_dict(overrides)
    return resolve(config)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(config, workdir) of a run from the folder to its report."""
    config, path = on_folder(folder), tmp_path_factory.mktemp("run") / "run"
    assert train.run(config, path) == path / "report.html"
    return config, path


def test_every_mode_has_a_file_with_what_its_spec_says():
    for name, spec in modes.MODES.items():
        if spec.of_runs:
            assert importlib.import_module(f"advdiff_jax.sweep.{name}").run
            continue
        assert modes.load(name).__module__ == f"advdiff_jax.modes.{name}"
        if spec.joint:
            assert modes.load_joint(name).__module__ == f"advdiff_jax.modes.{name}"
    assert {*modes.PREVIEWS} == {"evaluations", "preview", "poison", "gain", "inspect", "compare", "reference", "noise"}


def test_a_run_on_files_reaches_its_report(finished):
    _, path = finished
    results = json.loads((path / "results.json").read_text())
    assert 0 < results["nn_distance_ratio"] <= 1
    page = (path / "report.html").read_text()
    assert "of 48 training examples corrupted by gaussian" in page
    assert "corrupted_fraction" in page
    dirty, clean = (np.asarray(Image.open(path / "plots" / f"data_{name}.png")) for name in ("dirty", "clean"))
    assert dirty.shape == clean.shape
    assert not np.array_equal(dirty, clean)


def test_a_run_may_go_on_with_other_workers_but_not_with_other_data(finished, folder):
    _, path = finished
    assert train.run(on_folder(folder, **{"data.num_workers": 2, "data.read_ahead": 3}), path) == path / "report.html"
    with pytest.raises(UserError, match=r"another config: data.noise_std \(0.2 there, 0.3 here\)"):
        train.run(on_folder(folder, **{"data.noise_std": 0.3}), path)


def test_evaluation_and_samples_need_a_run(folder, tmp_path):
    for mode in (evaluate, sample):
        with pytest.raises(UserError, match=r"holds no run: train first \(--mode=train\), or name a run with --workdir"):
            mode.run(on_folder(folder), tmp_path / "none")
        assert not (tmp_path / "none").exists()


def test_preview_claims_no_run_and_says_what_was_done(folder, tmp_path):
    config = on_folder(folder)
    page = preview.run(config, tmp_path / "run")
    numbers = json.loads((page.parent / "statistics.json").read_text())
    assert numbers == preview.statistics(build_data(config))
    assert numbers.keys() == preview.MEANING.keys()
    assert numbers["examples"] == 48
    assert numbers["clean_changed"] == 0
    # 0.2 in [-1, 1], but for what clipping takes from dark and bright places.
    assert 0.12 < numbers["change_rms"] < 0.201
    text = page.read_text()
    assert text.count("data:image/png;base64") == 2
    assert "data_dirty" not in text  # embedded, not linked
    other = on_folder(folder, **{"data.noise_std": 0.05})  # still free for another config
    assert workdir.claim(other, tmp_path / "run", evaluate_only=False, previews=modes.PREVIEWS) == tmp_path / "run"


def test_preview_of_points_and_of_a_list_of_runs(tmp_path):
    base = plane3d.get_config()
    base.data.num_examples = 3000
    runs = {"a": {"variant": "ddpm"}, "b": {"variant": "ddpm", "data": {"noise_std": 0.2}}}
    config = list_of_runs("x", "", base, runs, seeds=(0,), metrics=("w2",))
    page = run_all(config, tmp_path, "preview", "0/1")
    assert page == tmp_path / "b" / "seed_0" / "preview" / "report.html"
    for label, noise_std in (("a", 0.1), ("b", 0.2)):
        numbers = json.loads((tmp_path / label / "seed_0" / "preview" / "statistics.json").read_text())
        assert numbers["change_rms"] == pytest.approx(noise_std, rel=0.02)
        assert numbers["corrupted_fraction"] == pytest.approx(0.9, abs=0.03)
    assert not (tmp_path / "report.html").exists()  # nothing to join


def test_prepare_takes_raw_archives_and_shows_the_set(tmp_path):
    raw_cifar10(tmp_path, per_file=8)
    config = cifar10.get_config("tiny")
    config.data.update({"data_dir": str(tmp_path / "tfds"), "manual_dir": str(tmp_path), "check_archives": False})
    page = prepare.run(resolve(config), tmp_path / "run")
    assert page == tmp_path / "run" / "preview" / "report.html"
    assert "of 40 training examples" in page.read_text()
    assert build_data(config).train.shape == (40, 16, 16, 3)


def test_restore_writes_the_mean_and_draws_of_each_image(finished, folder, tmp_path):
    _, run = finished
    dirty = tmp_path / "dirty"
    dirty.mkdir()
    rng = np.random.default_rng(0)
    for i, image in enumerate(photos.photo_crops(3, 1, 16)):
        noisy = image + 40.0 * rng.standard_normal(image.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(dirty / f"photo{i}.png")
    values = {"images": str(dirty), "clean": str(dirty), "noise_std": 0.3, "method": "sdedit", "draws": 2, "steps": 3}
    config = on_folder(folder, **{f"restore.{key}": value for key, value in values.items()})
    page = restore.run(config, run)
    assert page == run / "restore" / "dirty-noise-sdedit" / "report.html"
    found = np.load(page.parent / "restored.npz")
    assert found["names"].tolist() == ["photo0", "photo1", "photo2"]
    assert (found["draws"].shape, found["draws"].dtype) == ((2, 3, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(found["mean"], (found["draws"] / 127.5 - 1.0).mean(0), atol=0.005)  # of draws in 8 bits
    one = np.asarray(Image.open(page.parent / "mean" / "photo1.png"))
    np.testing.assert_allclose(one / 127.5 - 1.0, found["mean"][1], atol=0.005)
    assert len(list((page.parent / "draws").glob("*.png"))) == 6
    results = json.loads((page.parent / "results.json").read_text())
    assert results["restore_sdedit_psnr"] < 40.0  # the dirty images are named as the clean ones too
    assert results["restore_sdedit_spread"] > 0.0
    assert {"restore_nl_means_psnr", "restore_wavelet_ssim", "restore_as_measured_ssim"} <= results.keys()
    assert "restore_as_measured_psnr" not in results  # infinite
    text = page.read_text()
    assert "non-local means" in text
    assert text.count("data:image/png;base64") == 1


def test_poison_from_a_run_feeds_another(finished, folder, tmp_path):
    config, victim = finished
    overrides = {"checkpoint": str(victim), "attack_steps": 2, "draws": 1, "batch_size": 20}
    path = poison.run(on_folder(folder, **{f"poison.{key}": value for key, value in overrides.items()}), tmp_path)
    poisoned, clean = record_dataset.RecordDataset(path), build_data(config).source.train
    everything = np.arange(48)
    change = poisoned[everything].astype(int) - clean[everything].astype(int)
    assert np.abs(change).max() == 8  # radius 16/255 in [-1, 1]: 8 grey values
    assert np.all(np.any(change, axis=(1, 2, 3)))
    assert poisoned.about["checkpoint_step"] == 4

    on_poison = {"data.corruptions": ("poison",), "data.poison_file": str(path)}
    data = build_data(on_folder(folder, **on_poison))
    assert 0 < data.is_corrupted.sum() < 48
    np.testing.assert_array_equal(data.train[everything][data.is_corrupted], poisoned[everything][data.is_corrupted])
    np.testing.assert_array_equal(data.train[everything][~data.is_corrupted], clean[everything][~data.is_corrupted])
    with pytest.raises(UserError, match="was written for another data set: write it again with --mode=poison"):
        build_data(on_folder(folder, **on_poison, **{"data.size": 8}))


def test_poison_needs_a_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.poison\.checkpoint='' holds no run: set the workdir of the run to attack"):
        poison.run(resolve(digits.get_config()), tmp_path)
    assert not list(tmp_path.iterdir())
