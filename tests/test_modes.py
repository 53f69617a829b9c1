"""The modes that look at data, and a whole run on pictures that are read, corrupted and mirrored by a worker process."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from PIL import Image

from advdiff_jax import ablation, builders_data, builders_evaluation, poison, preview, run, workdir
from advdiff_jax.data import photos, stored, wire
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import BALLS
from configs import cifar10, digits, image_folder, plane3d, subspace_digits
from configs.ablation import list_of_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 pictures as files."""
    path = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(photos.photo_crops(48, 0, 16)):
        Image.fromarray(picture).save(path / f"{i:03d}.png")
    return path


def on_folder(folder, variant="ddpm,tiny"):
    config = image_folder.get_config(variant)
    config.data.update({"path": str(folder), "size": 16, "num_workers": 1, "read_ahead": 2})
    config.network.update({"base_channels": 4, "channel_mults": (1,), "attention_resolutions": ()})
    config.train.update({"steps": 4, "log_every": 2, "warmup_steps": 1})
    config.sampling.update({"steps": 2, "batch_size": 2})
    config.evaluation.update({"num_samples": 16, "grid": 16})
    return config


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(config, workdir) of a run from the folder to its report."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["pytest"])
    config, path = on_folder(folder), tmp_path_factory.mktemp("run") / "run"
    run.run(config, path, "train")
    return config, path


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


def test_a_run_may_go_on_with_other_workers_but_not_with_other_data(finished):
    config, path = finished
    other = config.copy_and_resolve_references()
    other.data.update({"num_workers": 2, "read_ahead": 3})
    assert run.run(other, path, "train") == path / "report.html"
    other.data.noise_std = 0.3
    with pytest.raises(UserError, match=r"another config: data.noise_std \(0.2 there, 0.3 here\)"):
        run.run(other, path, "train")


def test_preview_claims_no_run_and_says_what_was_done(folder, tmp_path):
    config = on_folder(folder)
    page = run.run(config, tmp_path / "run", "preview")
    numbers = json.loads((page.parent / "statistics.json").read_text())
    assert numbers == preview.statistics(builders_data.build_data(config))
    assert numbers["examples"] == 48
    assert numbers["untouched_changed"] == 0
    # 0.2 in [-1, 1], but for what clipping takes from dark and bright places.
    assert 0.12 < numbers["change_rms"] < 0.201
    assert "data_dirty" not in page.read_text()  # embedded, not linked
    config.data.noise_std = 0.05
    assert workdir.claim(config, tmp_path / "run", evaluate_only=False) == tmp_path / "run"  # still free for another config


def test_preview_of_points(tmp_path):
    config = plane3d.get_config()
    config.data.num_examples = 3000
    page = run.run(config, tmp_path, "preview")
    assert json.loads((page.parent / "statistics.json").read_text())["change_rms"] == pytest.approx(0.1, rel=0.02)


def test_modes_on_a_list_of_runs(tmp_path):
    base = plane3d.get_config()
    base.data.num_examples = 100
    config = list_of_runs("x", "", base, {"a": {"variant": "ddpm"}}, seeds=(0,), metrics=("w2",))
    assert ablation.run_all(config, tmp_path, "preview", "0/1").exists()


def test_a_missing_data_set_names_the_command_that_prepares_it(tmp_path):
    config = cifar10.get_config()
    config.data.data_dir = str(tmp_path)
    command = rf"python launch\.py --config=configs/cifar10\.py --mode=prepare --config\.data\.data_dir={tmp_path}"
    with pytest.raises(UserError, match=command):
        builders_data.build_data(config)


def test_prepare_takes_raw_archives_and_shows_the_set(tmp_path):
    from advdiff_jax.benchmark_data import raw_cifar10

    raw_cifar10(tmp_path, per_file=8)
    config = cifar10.get_config("tiny")
    config.data.update({"data_dir": str(tmp_path / "tfds"), "manual_dir": str(tmp_path)})
    page = run.run(config, tmp_path / "run", "prepare")
    assert "of 40 training examples" in page.read_text()
    assert builders_data.build_data(config).train.shape == (40, 16, 16, 3)


@pytest.mark.parametrize("maximised", [0, 1])
def test_poison_stays_in_its_ball_and_raises_the_loss(maximised):
    """On a linear network, against noise of the same size; pictures stay in [-1, 1]."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(6, 6)) / 3, jnp.float32)
    schedule = DDPMGrid()
    objective = denoising(schedule, PARAMETERIZATIONS["eps"])
    attack = poison.poisoner(objective, schedule.training_time, adversarial(BALLS["linf"], 5, 0.5), radius=0.1, draws=8)
    keys = jax.random.split(jax.random.key(maximised), 40)
    x0 = jnp.asarray(rng.uniform(-1, 1, (40, 6)), jnp.float32)

    def predict(x, t):
        return x @ weights

    poisoned = attack(predict, keys, x0)
    assert jnp.max(jnp.abs(poisoned - x0)) <= 0.1 + 1e-6
    assert jnp.max(jnp.abs(poisoned)) <= 1.0
    noise = jnp.clip(x0 + 0.1 * jnp.sign(jnp.asarray(rng.normal(size=x0.shape))), -1, 1)

    def loss(x):  # over draws of its own
        fresh = jax.random.split(jax.random.key(9), 400)
        t = schedule.training_time(jax.vmap(jax.random.uniform)(fresh))
        return float(jnp.mean(objective(predict, fresh, jnp.tile(x, (10, 1)), t)[0]))

    assert loss(poisoned) > loss(noise)
    assert loss(poisoned) > loss(x0)


def test_poison_from_a_run_feeds_another(finished, tmp_path):
    config, victim = finished
    config = config.copy_and_resolve_references()
    config.poison.update({"checkpoint": str(victim), "attack_steps": 2, "draws": 1, "batch_size": 20})
    path = run.run(config, tmp_path, "poison")
    poisoned, clean = stored.Stored(path), builders_data.build_data(config).source.train
    everything = np.arange(48)
    change = poisoned[everything].astype(int) - clean[everything].astype(int)
    assert np.abs(change).max() == 8  # radius 16/255 in [-1, 1]: 8 grey values
    assert np.all(np.any(change, axis=(1, 2, 3)))
    assert poisoned.about["checkpoint_step"] == 4

    config.data.corruptions, config.data.poison_file = ("poison",), str(path)
    data = builders_data.build_data(config)
    np.testing.assert_array_equal(data.train[everything][data.touched], poisoned[everything][data.touched])
    np.testing.assert_array_equal(data.train[everything][~data.touched], clean[everything][~data.touched])
    config.data.size = 8
    with pytest.raises(UserError, match="was made from other data"):
        builders_data.build_data(config)


def test_what_poison_needs(tmp_path):
    config = digits.get_config()
    with pytest.raises(UserError, match=r"config\.poison\.checkpoint='' is no workdir of a run"):
        poison.poison(config, tmp_path)
    config.data.corruptions = ("poison",)
    with pytest.raises(UserError, match="--mode=poison"):
        builders_data.build_data(config)
    config.data.poison_file = str(tmp_path / "none.array_record")
    with pytest.raises(UserError, match="is no data set of ours"):
        builders_data.build_data(config)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_stored_sets_come_back_exactly(tmp_path, dtype):
    x = np.random.default_rng(0).uniform(0, 200, (7, 4, 4, 1)).astype(dtype)
    stored.write(tmp_path / "x.array_record", [x[:5], x[5:]], x.shape, {"about": 1})
    found = stored.Stored(tmp_path / "x.array_record")
    np.testing.assert_array_equal(found[np.array([6, 0, 3])], x[[6, 0, 3]])
    assert stored.fingerprint(found) == stored.fingerprint(x)
    assert stored.fingerprint(x) != stored.fingerprint(x[::-1])


def test_subspace_metrics_know_the_truth():
    config = subspace_digits.get_config()
    data = builders_data.build_data(config)
    rng = np.random.default_rng(0)
    results = builders_evaluation.evaluate(config, data, data.source.clean(rng, 500))
    assert results["subspace_distance"] < 1e-5
    assert results["principal_angle_max"] < 1.0
    # Noise of std 0.2 on nine tenths of the pictures, outside 10 of 64 dimensions.
    assert results["subspace_distance_dirty"] == pytest.approx(0.2 * np.sqrt(data.touched.mean() * 54 / 64), rel=0.02)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"flip": True}, "config.data.flip mirrors pictures, and plane3d has none"),
        ({"corruptions": ("jpeg",)}, "jpeg is for pictures, and plane3d has none"),
        ({"corruptions": ("foreign_outlier",)}, r"foreign_source='photo_crops' has examples of shape \[32, 32, 3\]"),
        ({"corruptions": ("foreign_outlier",), "foreign_source": "moons"}, "'moons' is not known: choose one of plane3d"),
        ({"source": "linear_subspace", "base": "linear_subspace"}, "need another source as base"),
        ({"source": "linear_subspace", "components": 64}, r"components must lie in 1\.\.63"),
        ({"source": "array", "path": "nowhere.npz"}, "config.data.path='nowhere.npz' cannot be read"),
        ({"source": "folder", "path": "configs"}, "configs holds no picture"),
        ({"chance.gaussian": 2.0}, r"a chance must lie in \[0, 1\]"),
    ],
)
def test_configs_of_data_that_cannot_be(overrides, message):
    config = plane3d.get_config()
    config.data.num_examples = 200
    config.data.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message):
        builders_data.build_data(config)


def test_foreign_outliers_and_chances_by_config():
    config = image_folder.get_config()
    config.data.update({"source": "photo_crops", "size": 8, "num_examples": 300, "foreign_source": "photo_crops"})
    config.data.corruptions = ("foreign_outlier",)
    config.data.chance.foreign_outlier = 0.5
    data = builders_data.build_data(config)
    changed = np.any(data.train[data.inspected] != data.source.train[data.inspected], axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.45, abs=5 * np.sqrt(0.45 * 0.55 / 300))
    assert wire.first(data.train, 2).dtype == np.float32
