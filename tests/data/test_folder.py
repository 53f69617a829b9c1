"""Folders and arrays of images: their pixels, and the messages about bad files."""

import io
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.data import folder, records
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import InvalidArgument, UserError


def image(width=32, height=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def images(tmp_path):
    """Five images at three depths, of several sizes, modes and formats, and two files of other kinds."""
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    Image.fromarray(image(seed=1)).save(tmp_path / "a.png")
    Image.fromarray(image(64, 48, seed=2)).save(tmp_path / "deep" / "b.JPG")
    Image.fromarray(image(32, 32, 1, seed=3)).save(tmp_path / "deep" / "c.jpeg")
    Image.fromarray(image(20, 20, 4, seed=4)).save(tmp_path / "deep" / "deeper" / "d.png")
    Image.fromarray(image(seed=5)).save(tmp_path / "e.webp", lossless=True)
    (tmp_path / "deep" / "labels.csv").write_text("a,1\n")
    (tmp_path / "notes.txt").write_text("no image\n")
    return tmp_path


def test_any_depth_format_size_and_mode(images, caplog):
    with caplog.at_level(logging.INFO):
        found = folder.image_folder(str(images), 32, 3)
    assert found.shape == (5, 32, 32, 3)
    out = found[np.arange(5)]
    np.testing.assert_array_equal(out[0], image(seed=1))  # a.png
    np.testing.assert_array_equal(out[4], image(seed=5))  # e.webp
    assert np.all(out[2] == out[2][..., :1])  # grey becomes RGB
    assert "2 other files are ignored: deep/labels.csv, notes.txt" in caplog.text
    assert "5 images of 20x20 to 64x48 pixels (3 RGB, 1 L, 1 RGBA), cropped and resized to 32x32x3" in caplog.text
    assert "1 images are smaller than 32 pixels" in caplog.text
    smaller = folder.image_folder(str(images), 16, 1)[np.array([0])]
    np.testing.assert_array_equal(smaller[0], records.fit(Image.fromarray(image(seed=1)), 16, 1))


@pytest.mark.parametrize("damage", ["truncated", "not an image", "empty"])
def test_a_bad_image_is_named_and_fatal_or_skipped(images, damage, caplog):
    data = encoded(image(seed=9))
    (images / "bad.png").write_bytes({"truncated": data[: len(data) // 2], "not an image": b"hello", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"1 of 6 images are unusable: bad\.png \(.*on_bad_image=skip"):
        folder.image_folder(str(images), 32, 3)
    with caplog.at_level(logging.WARNING):
        assert len(folder.image_folder(str(images), 32, 3, on_bad="skip")) == 5
    assert "1 of 6 images are skipped: bad.png" in caplog.text


def test_a_check_is_cached_until_a_file_changes(images, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    folder.image_folder(str(images), 32, 3, cache_dir=cache)
    checked, check = [], folder._check_image
    monkeypatch.setattr(folder, "_check_image", lambda path: checked.append(path.name) or check(path))
    folder.image_folder(str(images), 32, 3, cache_dir=cache)
    assert checked == []
    (images / "a.png").write_bytes(encoded(image(seed=7))[:50])
    with pytest.raises(UserError, match=r"a\.png"):
        folder.image_folder(str(images), 32, 3, cache_dir=cache)
    assert len(checked) == 5


def test_an_image_that_breaks_later_is_named_too(images, caplog):
    strict, lenient = (folder.image_folder(str(images), 32, 3, on_bad=on_bad) for on_bad in ("fail", "skip"))
    (images / "a.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.png is unusable \(not an image of a known format\)"):
        strict[np.arange(5)]
    with caplog.at_level(logging.WARNING):
        out = lenient[np.arange(5)]
        lenient[np.arange(5)]
    np.testing.assert_array_equal(out[0], out[1])  # the next one stands in
    assert caplog.text.count("a.png is skipped") == 1
    with pytest.raises(UserError, match=r"a\.png"):  # from a reading thread too
        next(batches(BatchSource(strict, 5, 0), 0))


def test_folders_without_images(tmp_path, images):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no image \(0 files"):
        folder.image_folder(str(empty), 32, 3)
    (empty / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"1 files, none of them \.png"):
        folder.image_folder(str(empty), 32, 3)
    (empty / "a.png").write_text("no")
    with pytest.raises(UserError, match=r"holds 1 images, all unusable: a\.png"):
        folder.image_folder(str(empty), 32, 3, on_bad="skip")
    for path in ("", str(tmp_path / "nowhere"), str(images / "a.png")):
        with pytest.raises(UserError, match="is not a folder"):
            folder.image_folder(path, 32, 3)


def test_crop_is_centred_and_resize_averages():
    ramp = np.zeros((40, 60, 3), np.uint8)
    ramp[:, 10:50, 0] = np.arange(40) * 4  # the centred square is columns 10 to 49
    square = records.fit(Image.fromarray(ramp), 40, 3)
    np.testing.assert_array_equal(square, ramp[:, 10:50])
    np.testing.assert_array_equal(records.fit(Image.fromarray(ramp), 20, 3, crop=20), ramp[10:30, 20:40])
    halved = records.fit(Image.fromarray(ramp), 20, 3)
    np.testing.assert_allclose(halved[..., 0], np.tile(np.arange(20) * 8 + 2, (20, 1)), atol=1)


def test_modes():
    transparent = np.zeros((8, 8, 4), np.uint8)
    assert np.all(records.fit(Image.fromarray(transparent), 8, 3) == 255)  # on white, not black
    deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert np.all(records.fit(deep, 8, 1) == 128)  # scaled, not clipped
    palette = Image.fromarray(image(seed=1)).quantize(8)
    np.testing.assert_array_equal(records.fit(palette, 32, 3), np.asarray(palette.convert("RGB")))


def test_arrays(tmp_path):
    x = np.stack([image(seed=seed) for seed in range(7)])
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", labels=np.arange(7), x=x)
    indices = np.array([3, 0, 3])
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(folder.image_array(str(tmp_path / name), 32, 3)[indices], x[indices])
    pickled = pickle.dumps(folder.image_array(str(tmp_path / "x.npy"), 32, 3))
    assert len(pickled) < 1000  # the path, for a worker process to map; not the array
    np.testing.assert_array_equal(pickle.loads(pickled)[indices], x[indices])
    with pytest.raises(UserError, match=r"no uint8 array \[N, 64, 64, 3\] \(found: x\.npy: uint8 \[7, 32, 32, 3\]\)"):
        folder.image_array(str(tmp_path / "x.npy"), 64, 3)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:1000])
    for name in ("x.npy", "x.npz", "nowhere.npz"):
        with pytest.raises(UserError, match=f"{name}' is not a readable .npy or .npz file"):
            folder.image_array(str(tmp_path / name), 32, 3)


@pytest.mark.parametrize(
    ("options", "paths", "message"),
    [
        ({"channels": 2}, ["a"], r"channels=2 is not supported: set 1 \(grey\) or 3 \(RGB\)"),
        ({"size": 0}, ["a"], "size=0 is out of range"),
        ({"crop": -1}, ["a"], "crop=-1 is out of range"),
        ({"on_bad": "ignore"}, ["a"], "on_bad_image='ignore' is unknown: set one of fail, skip"),
        ({}, [], "holds no images"),
    ],
)
def test_arguments_out_of_range_are_refused(options, paths, message):
    with pytest.raises(InvalidArgument, match=message):
        records.Images(folder.Files("", paths), **{"size": 8, "channels": 3} | options)
