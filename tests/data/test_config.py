"""The keys of a config that say how data are read, from the command line to the data set."""

import logging

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from advdiff_jax.builders import data as builders
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import fingerprint, pixels
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError
from advdiff_jax.modes import preview
from configs import default, digits, image_folder
from tests.data.files import encoded, noise


@pytest.fixture
def from_command_line(monkeypatch):
    def parse(config, *options):
        monkeypatch.setattr("sys.argv", ["test", *options])  # config_flags looks for overrides there
        values = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", config, flag_values=values)
        values(["test", *options])
        return values.config

    return parse


def folder_config(path, **changes):
    config = image_folder.get_config()
    config.data.update({"path": str(path), "size": 32, "fraction": 0.0, **changes})
    return config


@pytest.fixture
def images(tmp_path):
    for seed in range(20):
        (tmp_path / f"{seed:02}.png").write_bytes(encoded(noise(seed=seed)))
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(("given", "expected"), [("48", 48), ("(48,64)", (48, 64)), ("[48,64]", [48, 64])])
def test_a_size_is_a_side_or_height_and_width(given, expected, from_command_line):
    config = from_command_line(default.get_config(), f"--config.data.size={given}")
    assert config.data.size == expected
    config.data.source, config.data.num_examples = "photo_crops", 8
    side = expected if isinstance(expected, int) else None
    assert builders.build_data(resolve(config)).train.shape == (8, *((side, side) if side else tuple(expected)), 3)


@pytest.mark.parametrize("given", ["abc", "0", "(48,)", "(48,64,3)", "(48,-1)", "4.5"])
def test_other_sizes_are_refused(given, from_command_line):
    config = from_command_line(default.get_config(), f"--config.data.size={given}")
    config.data.source, config.data.num_examples = "photo_crops", 8
    with pytest.raises(UserError, match=r"config\.data.*size=.* is out of range: set a "):
        builders.build_data(resolve(config))


def test_a_folder_is_not_mirrored_unless_it_is_said(images, caplog):
    assert not image_folder.get_config().data.flip
    with caplog.at_level(logging.INFO):
        builders.build_data(folder_config(images))
    assert "is mirrored" not in caplog.text
    with caplog.at_level(logging.INFO):
        builders.build_data(folder_config(images, flip=True))
    assert "config.data.flip=True: at each visit, every second image is mirrored, left for right" in caplog.text


def test_a_preview_shows_a_spread_of_the_folder_and_its_table(images, tmp_path_factory):
    config, out = folder_config(images), tmp_path_factory.mktemp("run")
    config.evaluation.grid = 5
    page = preview.run(config, out).read_text()
    shown = np.load(out / "preview" / "data.npz")["clean"]
    np.testing.assert_array_equal(shown, np.stack([noise(seed=seed) for seed in (0, 4, 8, 12, 16)]))
    for cell in ("used, left out and refused", "left out", "text", "notes.txt"):
        assert cell in page


@pytest.mark.parametrize("value_range", [(1.0,), (2, 1), (1, 1)])
def test_a_range_of_values_has_two_ends_in_order(images, value_range):
    with pytest.raises(UserError, match=r"value_range=.* is out of range: set \(BLACK,WHITE\) with BLACK < WHITE, or \(\)"):
        builders.build_data(folder_config(images, value_range=value_range))


def test_arrays_and_points_of_ones_own(tmp_path):
    x = np.stack([noise(8, 8, seed=seed) for seed in range(6)])
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "x.npz", train=x / 255, test=x[:4] / 255, points=points)
    config = folder_config(tmp_path / "x.npz", source="array", size=8, array_key="train")
    np.testing.assert_array_equal(builders.build_data(config).source.train[np.arange(6)], x)
    config = default.get_config()
    config.data.update({"source": "points", "path": str(tmp_path / "x.npz"), "array_key": "points", "fraction": 0.0})
    data = builders.build_data(resolve(config))
    np.testing.assert_array_equal(data.train, points.astype(np.float32))
    assert not data.source.on_the_fly


def test_how_a_training_set_is_stored(images, caplog):
    noisy = {"fraction": 1.0, "noise_std": 0.5}
    data = {name: builders.build_data(folder_config(images, storage=name, **noisy)) for name in ("source", "uint8", "float")}
    assert {name: one.train.dtype for name, one in data.items()} == {"source": np.uint8, "uint8": np.uint8, "float": np.float32}
    x = data["float"].train[np.arange(20)]
    assert np.abs(x).max() > 1.5
    np.testing.assert_array_equal(pixels.to_bytes(x), data["uint8"].train[np.arange(20)])
    assert "config.sampling.clip=1: the samples end within black and white" in caplog.text
    kept = {name: fingerprint.of(one.source.train) for name, one in data.items()}  # the files are the same
    assert kept["float"] == kept["uint8"] == kept["source"]
    batch = BatchSource(data["float"].train, 4, seed=0)
    assert (batch[0]["examples"].dtype, batch.nbytes) == (np.float32, 4 * 32 * 32 * 3 * 4)


def test_floats_can_be_stored_as_files_are():
    config = digits.get_config()
    config.data.storage = "uint8"
    data = builders.build_data(config)
    assert data.train.dtype == data.source.train.dtype == np.uint8
    assert preview.statistics(data)["clean_changed"] == 0
    drawn = data.source.clean(np.random.default_rng(0), 8)
    np.testing.assert_array_equal(drawn, pixels.to_float(pixels.to_bytes(drawn)))
    config = default.get_config()
    config.data.storage = "uint8"
    with pytest.raises(UserError, match=r"config\.data: storage='uint8' is for images, and the source has points: set source"):
        builders.build_data(config)


def test_a_smaller_image_is_enlarged_or_framed(tmp_path):
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encoded(noise(20, 12, seed=seed)))
    framed = builders.build_data(folder_config(tmp_path, size=24, pad=True)).source.train[np.array([1])][0]
    np.testing.assert_array_equal(framed, np.pad(noise(20, 12, seed=1), ((6, 6), (2, 2), (0, 0))))
    enlarged = builders.build_data(folder_config(tmp_path, size=24)).source.train[np.array([1])][0]
    assert enlarged[[0, -1]].any()
    larger = [builders.build_data(folder_config(tmp_path, size=8, pad=pad)).source.train[np.arange(4)] for pad in (True, False)]
    np.testing.assert_array_equal(*larger)  # an image that does not fit is cropped and resized as before


def test_fewer_than_four_examples_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.stack([noise(8, 8, seed=seed) for seed in range(3)]))
    with pytest.raises(UserError, match=r"data\.source=array has 3 examples, and training needs 4 or more"):
        builders.build_data(folder_config(tmp_path / "x.npy", source="array", size=8))
