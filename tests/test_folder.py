"""Folders and arrays of pictures: what is read, and what is said about what cannot be."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.data import folder, records, wire
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import UserError


def picture(width=32, height=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """Five pictures at three depths, of several sizes, modes and formats, and two files that are no pictures."""
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    Image.fromarray(picture(seed=1)).save(tmp_path / "a.png")
    Image.fromarray(picture(64, 48, seed=2)).save(tmp_path / "deep" / "b.JPG")
    Image.fromarray(picture(32, 32, 1, seed=3)).save(tmp_path / "deep" / "c.jpeg")
    Image.fromarray(picture(20, 20, 4, seed=4)).save(tmp_path / "deep" / "deeper" / "d.png")
    Image.fromarray(picture(seed=5)).save(tmp_path / "e.webp", lossless=True)
    (tmp_path / "deep" / "labels.csv").write_text("a,1\n")
    (tmp_path / "notes.txt").write_text("no picture\n")
    return tmp_path


def test_any_depth_format_size_and_mode(pictures, caplog):
    with caplog.at_level(logging.INFO):
        found = folder.picture_folder(str(pictures), 32, 3)
    assert found.shape == (5, 32, 32, 3)
    out = found[np.arange(5)]
    np.testing.assert_array_equal(out[0], picture(seed=1))  # a.png
    np.testing.assert_array_equal(out[4], picture(seed=5))  # e.webp
    assert np.all(out[2] == out[2][..., :1])  # grey becomes RGB
    said = caplog.text
    assert "2 files are no pictures and are ignored: deep/labels.csv, notes.txt" in said
    assert "5 pictures of 20x20 to 64x48" in said
    assert "1 L" in said
    assert "1 RGBA" in said
    assert "1 pictures are smaller than 32 pixels" in said
    assert folder.picture_folder(str(pictures), 16, 1)[np.array([3])].shape == (1, 16, 16, 1)


@pytest.mark.parametrize("damage", ["truncated", "not a picture", "empty"])
def test_a_bad_picture_is_named_and_fatal_or_skipped(pictures, damage, caplog):
    data = encoded(picture(seed=9))
    (pictures / "bad.png").write_bytes({"truncated": data[: len(data) // 2], "not a picture": b"hello", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"1 of 6 pictures .*bad\.png \(.*on_bad_picture=skip"):
        folder.picture_folder(str(pictures), 32, 3)
    with caplog.at_level(logging.WARNING):
        assert len(folder.picture_folder(str(pictures), 32, 3, on_bad="skip")) == 5
    assert "1 of 6 pictures are skipped: bad.png" in caplog.text


def test_a_check_is_kept_until_a_file_changes(pictures, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("kept")
    folder.picture_folder(str(pictures), 32, 3, cache_dir=cache)
    looked, look = [], folder._look
    monkeypatch.setattr(folder, "_look", lambda path: looked.append(path.name) or look(path))
    folder.picture_folder(str(pictures), 32, 3, cache_dir=cache)
    assert looked == []
    (pictures / "a.png").write_bytes(encoded(picture(seed=7))[:50])
    with pytest.raises(UserError, match=r"a\.png"):
        folder.picture_folder(str(pictures), 32, 3, cache_dir=cache)
    assert len(looked) == 5


def test_a_picture_that_breaks_later_is_named_too(pictures, caplog):
    strict, lenient = (folder.picture_folder(str(pictures), 32, 3, on_bad=on_bad) for on_bad in ("fail", "skip"))
    (pictures / "a.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.png cannot be used \(not a picture"):
        strict[np.arange(5)]
    with caplog.at_level(logging.WARNING):
        out = lenient[np.arange(5)]
        lenient[np.arange(5)]
    np.testing.assert_array_equal(out[0], out[1])  # the next one stands in
    assert caplog.text.count("a.png is skipped") == 1
    with pytest.raises(UserError, match=r"a\.png"):  # out of a reading thread as well
        next(batches(BatchSource(strict, 5, 0), 0))


def test_folders_without_pictures(tmp_path, pictures):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no picture \(0 files"):
        folder.picture_folder(str(empty), 32, 3)
    (empty / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"1 files, none of them \.png"):
        folder.picture_folder(str(empty), 32, 3)
    (empty / "a.png").write_text("no")
    with pytest.raises(UserError, match="none of the 1 pictures"):
        folder.picture_folder(str(empty), 32, 3, on_bad="skip")
    for path in ("", str(tmp_path / "nowhere"), str(pictures / "a.png")):
        with pytest.raises(UserError, match="is not a folder"):
            folder.picture_folder(path, 32, 3)


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
    palette = Image.fromarray(picture(seed=1)).quantize(8)
    np.testing.assert_array_equal(records.fit(palette, 32, 3), np.asarray(palette.convert("RGB")))


def test_arrays(tmp_path):
    x = np.stack([picture(seed=seed) for seed in range(7)])
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", labels=np.arange(7), x=x)
    indices = np.array([3, 0, 3])
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(folder.picture_array(str(tmp_path / name), 32, 3)[indices], x[indices])
    with pytest.raises(UserError, match=r"x\.npy: uint8 \[7, 32, 32, 3\].*config.data.size"):
        folder.picture_array(str(tmp_path / "x.npy"), 64, 3)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:1000])
    for name in ("x.npy", "x.npz", "nowhere.npz"):
        with pytest.raises(UserError, match="cannot be read"):
            folder.picture_array(str(tmp_path / name), 32, 3)


def test_values_that_cannot_be():
    for options in ({"channels": 2}, {"size": 0}, {"crop": -1}, {"on_bad": "ignore"}):
        with pytest.raises(ValueError, match="need channels"):
            records.Pictures(folder.Files("", ["a"]), **{"size": 8, "channels": 3} | options)
    with pytest.raises(ValueError, match="no pictures"):
        records.Pictures(folder.Files("", []), 8, 3)


def test_first_and_spread_are_floats_in_order():
    x = np.arange(10, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(wire.first(x, 3), wire.to_float(x[:3]))
    np.testing.assert_array_equal(wire.spread(x, 5), wire.to_float(x[::2]))
    assert len(wire.spread(x, 100)) == 10
