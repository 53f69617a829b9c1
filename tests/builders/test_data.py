"""Data as a config describes them: sources, corruptions by name and chance, the noise of each example, and mistakes."""

import re

import numpy as np
import pytest

from advdiff_jax.builders.data import build_data, build_noise_std, known_noise_std, least_noise_std, prepare_command
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import photos, pixels
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import UserError
from advdiff_jax.modes import MODES
from configs import cifar10, digits, gaussian, image_folder, plane3d


def config_of(**overrides):
    config = plane3d.get_config("ambient_oracle")
    config.update_from_flattened_dict({"data.num_examples": 100} | overrides)
    return config


def test_the_batches_of_an_oracle_hold_the_noise_of_each_example():
    config = config_of()
    data = build_data(config)
    noise_std = build_noise_std(config, data)
    source = BatchSource(data.train, 64, seed=0, noise_std=noise_std)
    plain = BatchSource(data.train, 64, seed=0)
    iterator = batches(source, 1)
    for step in (1, 2):  # two epochs; from a step on, as after a resume
        batch = next(iterator)
        assert plain[step].keys() == {"examples"}
        np.testing.assert_array_equal(batch["examples"], plain[step]["examples"])
        np.testing.assert_array_equal(batch["noise_std"], source[step]["noise_std"])
        # The clean points lie on the plane, and the others do not.
        off = np.abs(batch["examples"] @ np.ones(3) / np.sqrt(3.0))
        np.testing.assert_array_equal(off > 1e-5, batch["noise_std"] > 0.0)
        np.testing.assert_allclose(np.unique(batch["noise_std"]), [0.0, 0.1], rtol=1e-6)
    iterator.close()
    parts = [BatchSource(data.train, 64, 0, i, 2, noise_std=noise_std)[1]["noise_std"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), source[1]["noise_std"])


def test_the_noise_of_images_that_are_read_on_the_fly_is_replayed():
    config = config_of(**{"data.source": "photo_crops", "data.size": 8, "data.corruptions": ("gaussian_range",)})
    data = build_data(config)
    stds = build_noise_std(config, data)(data.diagnosed)
    np.testing.assert_array_equal(stds > 0.0, data.is_corrupted)
    assert stds[data.is_corrupted].min() >= 0.05
    assert stds.max() <= 0.2
    clean, dirty = (pixels.to_float(examples[data.diagnosed]) for examples in (data.source.train, data.train))
    noise = (dirty - clean)[data.is_corrupted] / stds[data.is_corrupted][:, None, None, None]
    inside = np.abs(clean[data.is_corrupted]) < 0.4  # far from black and white: not clipped
    assert np.std(noise[inside]) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("corruptions", [("uniform_outlier",), ("gaussian", "uniform_outlier"), ()])
def test_an_oracle_of_other_corruptions_is_refused(corruptions):
    config = config_of(**{"data.corruptions": corruptions})
    with pytest.raises(UserError, match=r"ambient_oracle reads the noise std .*: set one of gaussian, gaussian_range alone"):
        build_noise_std(config, build_data(config))


def test_what_is_known_of_the_noise_of_a_config():
    assert known_noise_std(config_of()) == 0.1
    for none in ({"data.fraction": 0.0}, {"data.chance.gaussian": 0.0}, {"data.corruptions": ("uniform_outlier",)}):
        assert known_noise_std(config_of(**none)) is None
    assert least_noise_std(config_of()) == 0.0
    assert least_noise_std(config_of(**{"data.fraction": 1.0})) == 0.1
    assert least_noise_std(config_of(**{"data.fraction": 1.0, "data.chance.gaussian": 0.5})) == 0.0


def test_a_missing_data_set_names_the_command_that_prepares_it(tmp_path):
    config = cifar10.get_config()
    config.data.data_dir = str(tmp_path)
    command = "python launch.py --config=configs/cifar10.py --mode=prepare --config.data.source=tfds"
    options = f"--config.data.tfds_name=cifar10 --config.data.data_dir={tmp_path}"
    with pytest.raises(UserError, match=re.escape(f"{command} {options}")):
        build_data(config)


def test_the_command_that_prepares_names_other_sets_too():
    config = digits.get_config()
    config.data.update({"corruptions": ("foreign_outlier",), "foreign_source": "tfds", "foreign_tfds_name": "mnist"})
    command = prepare_command(config)
    assert command.endswith(
        "--config=configs/digits.py --mode=prepare --config.data.source=digits "
        "--config.data.corruptions=\"('foreign_outlier',)\" --config.data.foreign_source=tfds "
        "--config.data.foreign_tfds_name=mnist"
    )
    resolve(config, re.findall(r"--config\.([\w.]+)=", command), MODES, "prepare")  # each key is read


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"flip": True}, r"config\.data\.flip=True mirrors images, and data\.source=plane3d has none: set False"),
        ({"restored_by": "wavelet"}, r"restored_by=wavelet restores images, and data\.source=plane3d has none: set none"),
        ({"corruptions": ("jpeg",)}, r"config\.data\.corruptions: jpeg needs images, and data\.source=plane3d has none"),
        ({"corruptions": ("rain",)}, r"config\.data\.corruptions='rain' is unknown"),
        (
            {"corruptions": ("foreign_outlier",)},
            r"foreign_source='photo_crops' has examples of shape \[32, 32, 3\], .*: set a source",
        ),
        (
            {"corruptions": ("foreign_outlier",), "foreign_source": "moons"},
            r"foreign_source='moons' is unknown.*: set one of plane3d",
        ),
        ({"corruptions": ("poison",)}, r"config\.data\.poison_file is empty: write one with --mode=poison, and set its path"),
        ({"corruptions": ("poison",), "poison_file": "none.array_record"}, r"'none\.array_record'"),
        ({"source": "linear_subspace", "base": "linear_subspace"}, r"base='linear_subspace' is the source itself: set another"),
        ({"source": "linear_subspace", "subspace_dim": 64}, r"config\.data: subspace_dim.* 63"),
        ({"source": "array", "path": "nowhere.npz"}, r"config\.data\.path='nowhere\.npz'"),
        ({"source": "folder", "path": "configs"}, r"configs.* no image"),
        ({"chance.gaussian": 2.0}, r"^config\.data: .*chance.*2"),
        ({"noise_std": -0.1}, r"^config\.data: .*noise.*-0\.1"),
        ({"half_width": -1.0}, r"^config\.data: .*half_width.*-1"),
        ({"source": "gaussian", "stds": (0.1, -1.0)}, r"^config\.data: .*stds.*-1"),
    ],
)
def test_mistakes_in_the_data_are_the_users(overrides, message):
    config = plane3d.get_config()
    config.data.num_examples = 200
    config.data.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message) as caught:
        build_data(config)
    assert "\n" not in str(caught.value)


def test_foreign_outliers_and_chances_by_config():
    config = image_folder.get_config()
    config.data.update({"source": "photo_crops", "size": 8, "num_examples": 300, "foreign_source": "photo_crops"})
    config.data.fraction = 0.9
    config.data.corruptions = ("foreign_outlier",)
    config.data.chance.foreign_outlier = 0.5
    data = build_data(config)
    changed = np.any(data.train[data.diagnosed] != data.source.train[data.diagnosed], axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.45, abs=5 * np.sqrt(0.45 * 0.55 / 300))
    assert pixels.first(data.train, 2).dtype == np.float32


def test_foreign_images_take_the_shape_of_the_own_ones():
    config = digits.get_config()
    config.data.update({"num_examples": 50, "corruptions": ("foreign_outlier",), "fraction": 0.1})
    data = build_data(config)
    crops = photos.photo_crops(50, 0, 8).astype(np.float32).mean(-1, keepdims=True) / 127.5 - 1.0
    foreign = data.train[data.is_corrupted]
    nearest = np.abs(foreign[:, None] - crops).mean((2, 3, 4)).min(1)
    assert nearest.max() < 0.15  # the weights of grey are not equal
    assert np.abs(data.source.train[:20, None] - crops).mean((2, 3, 4)).min() > 0.2


def test_the_gaussian_source_has_its_stds():
    config = gaussian.get_config()
    np.testing.assert_allclose(np.std(build_data(config).train, axis=0), config.data.stds, rtol=0.02)
