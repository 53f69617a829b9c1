"""Folders and archives of images: their pixels, the table of their files, and the messages about bad ones."""

import logging
import os
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.data import check, file_records, folder, listing, records
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import InvalidArgument, UserError
from tests.data.files import encoded, ramp
from tests.data.files import noise as image


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


def many(root, count, **options):
    root.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        (root / f"{seed}.png").write_bytes(encoded(image(seed=seed), **options))


def test_any_depth_format_size_and_mode(images, caplog):
    with caplog.at_level(logging.INFO):
        found = folder.image_folder(str(images), 32, 3)
    assert found.shape == (5, 32, 32, 3)
    out = found[np.arange(5)]
    np.testing.assert_array_equal(out[0], image(seed=1))  # a.png
    np.testing.assert_array_equal(out[4], image(seed=5))  # e.webp
    assert np.all(out[2] == out[2][..., :1])  # grey becomes RGB
    assert "5 images used, 2 files left out, 0 refused" in caplog.text
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


def test_findings_are_kept_until_a_file_changes(images, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    folder.image_folder(str(images), 32, 3, cache_dir=cache)
    checked, check_one = [], check.check_one
    monkeypatch.setattr(check, "check_one", lambda records, i, name: checked.append(name) or check_one(records, i, name))
    again = folder.image_folder(str(images), 32, 3, cache_dir=cache)
    assert checked == []
    np.testing.assert_array_equal(again[np.array([0])][0], image(seed=1))
    (images / "a.png").write_bytes(encoded(image(seed=7))[:50])
    with pytest.raises(UserError, match=r"a\.png"):
        folder.image_folder(str(images), 32, 3, cache_dir=cache)
    assert checked == ["a.png"]
    next(cache.iterdir()).write_text("not JSON\n[1]\n5\n")
    (images / "a.png").unlink()
    assert len(folder.image_folder(str(images), 32, 3, cache_dir=cache)) == 4


def test_an_interrupted_check_keeps_what_it_has_found(tmp_path, monkeypatch):
    many(tmp_path / "x", 40)
    checked, check_one = [], check.check_one

    def interrupted(records, index, name):
        checked.append(name)
        if len(checked) == 20:
            raise KeyboardInterrupt
        return check_one(records, index, name)

    monkeypatch.setattr(check.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(check, "check_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.image_folder(str(tmp_path / "x"), 32, 3, cache_dir=tmp_path / "cache")
    assert len(folder.image_folder(str(tmp_path / "x"), 32, 3, cache_dir=tmp_path / "cache")) == 40
    assert 40 < len(checked) < 60  # the parts that were complete are not checked again


def test_a_reading_error_that_passes_is_not_remembered(images, tmp_path_factory, monkeypatch):
    cache, read = tmp_path_factory.mktemp("cache"), file_records.Files.read

    def fail(self, indices):
        if self.name(indices[0]).endswith("a.png"):
            raise OSError(5, "Input/output error")
        return read(self, indices)

    monkeypatch.setattr(file_records.Files, "read", fail)
    with pytest.raises(UserError, match=r"1 of 5 images are unusable: a\.png \(unreadable: Input/output error\)"):
        folder.image_folder(str(images), 32, 3, cache_dir=cache)
    monkeypatch.undo()
    assert len(folder.image_folder(str(images), 32, 3, cache_dir=cache)) == 5


def test_a_long_check_shows_its_progress(tmp_path, monkeypatch, caplog):
    many(tmp_path, 20)
    monkeypatch.setattr(check, "SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        folder.image_folder(str(tmp_path), 32, 3)
    assert "decoding 20 images once" in caplog.text
    assert "checked 20 of 20 (100 %), 0 s left" in caplog.text


def test_an_image_that_vanishes_or_changes_later_falls_under_the_policy(images, caplog):
    strict, lenient = (folder.image_folder(str(images), 32, 3, on_bad=on_bad) for on_bad in ("fail", "skip"))
    good = lenient[np.arange(5)]
    (images / "a.png").unlink()
    (images / "e.webp").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.png is unusable \(No such file or directory\): repair or remove it"):
        strict[np.arange(5)]
    with pytest.raises(UserError, match=r"e\.webp is unusable \(changed since the start"):
        strict[np.array([4])]
    with caplog.at_level(logging.WARNING):
        out = lenient[np.arange(5)]
        lenient[np.arange(5)]
    np.testing.assert_array_equal(out, good[[1, 1, 2, 3, 1]])  # the next good one stands in
    assert caplog.text.count("a.png is skipped") == 1
    with pytest.raises(UserError, match=r"(a\.png|e\.webp)"):  # from a reading thread too
        next(batches(BatchSource(strict, 5, 0), 0))


def test_folders_without_images(tmp_path, images):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no image \(0 files"):
        folder.image_folder(str(empty), 32, 3)
    (empty / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"1 files, none of them PNG, JPEG, .*1 text \(a\.txt\)\): set another folder"):
        folder.image_folder(str(empty), 32, 3)
    np.save(empty / "x.npy", image())
    with pytest.raises(UserError, match=r"x\.npy is NumPy array: set --config\.data\.source=array"):
        folder.image_folder(str(empty), 32, 3)
    (empty / "a.png").write_text("no")
    with pytest.raises(UserError, match=r"holds 1 images, all unusable: a\.png"):
        folder.image_folder(str(empty), 32, 3, on_bad="skip")
    for path in ("", str(tmp_path / "nowhere"), str(images / "a.png")):
        with pytest.raises(UserError, match="is not a folder"):
            folder.image_folder(path, 32, 3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_images_are_refused_before_training(tmp_path, count):
    many(tmp_path, count)
    with pytest.raises(UserError, match=f"holds {count} usable images?, and training needs 4 or more"):
        folder.image_folder(str(tmp_path), 32, 3)


def test_the_table_counts_every_file(images, caplog):
    turned = Image.Exif()
    turned[274] = 6
    (images / "turned.png").write_bytes(encoded(np.rot90(image(20, 40, seed=6)).copy(), exif=turned))
    (images / "gif.jpg").write_bytes(encoded(image(32, 32, 1, seed=7), "GIF"))
    (images / "no_suffix").write_bytes(encoded(image(seed=8), "BMP"))
    (images / "scan.avif").write_bytes(encoded(image(seed=9), "AVIF"))
    (images / "page.tif").write_bytes(encoded(image(seed=10), "TIFF"))
    (images / ".hidden.png").write_bytes(encoded(image()))
    (images / "cats").symlink_to(images / "deep")
    for number in range(30):
        (images / f"cut{number}.jpg").write_bytes(encoded(image(64, 64), "JPEG")[: 800 + number])
    (images / "new\nline.png").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        found = folder.image_folder(str(images), 32, 3, on_bad="skip")
    assert found.shape == (10, 32, 32, 3)
    heads, *rows = found.inventory
    assert heads == ("files", "number", "what", "example")
    assert rows[0] == ("used", "10", "images", "a.png")
    assert ("of these", "1", "turned upright by EXIF", "turned.png") in rows
    assert ("left out", "2", "text", "deep/labels.csv") in rows
    assert ("left out", "1", "hidden", ".hidden.png") in rows
    assert ("left out", "1", "link to a folder that is listed already", "cats") in rows
    (truncated,) = [row for row in rows if row[3] == "cut0.jpg"]
    assert truncated[:2] == ("refused", "30")
    assert ("refused", "1", "an empty file", r"'new\nline.png'") in rows
    assert "10 images used, 4 files left out, 31 refused" in caplog.text
    assert "5 images of 20x20" not in caplog.text
    assert "10 images of 20x20 to 64x48 pixels" in caplog.text
    assert "by folder: . 7, deep 3" in caplog.text
    np.testing.assert_array_equal(found[np.array([9])][0], records.fit(Image.fromarray(image(20, 40, seed=6)), 32, 3))


def test_a_sound_image_is_the_same_under_every_name(tmp_path):
    for name in ("a.png", "b.jpg", "c.JPEG", "d", "e.txt", "f.tif"):
        (tmp_path / name).write_bytes(encoded(image(seed=3)))
    found = folder.image_folder(str(tmp_path), 32, 3)
    np.testing.assert_array_equal(found[np.arange(6)], np.stack([image(seed=3)] * 6))


@pytest.mark.parametrize(
    ("path", "reason"),
    [("x" * 300, "File name too long"), ("~nosuchuser/x", "No such file or directory"), ("", ": set a folder")],
)
def test_a_path_that_cannot_be_opened_is_said_so(path, reason):
    with pytest.raises(UserError, match=rf"config\.data\.path='{path}' is not a folder.*{reason}"):
        folder.image_folder(path, 32, 3)


def test_pointers_and_archives_in_an_archive_name_the_remedy(tmp_path):
    for name, text in (
        ("a", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("b", "/annex/objects/SHA256E-s9\n"),
    ):
        (tmp_path / f"{name}.png").write_text(text)
    with pytest.raises(
        UserError, match=r"a\.png \(Git LFS pointer, .*: git lfs pull\), b\.png \(git-annex .*: git annex get\)"
    ):
        folder.image_folder(str(tmp_path), 32, 3)
    (tmp_path / "outer").mkdir()
    for name, content in (("inner.zip", encoded(image())), ("outer/outer.zip", None)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a.png" if content else "inner.zip", content or (tmp_path / "inner.zip").read_bytes())
    with pytest.raises(UserError, match=r"holds no image .*outer\.zip/inner\.zip is zip: unpack it$"):
        folder.image_folder(str(tmp_path / "outer"), 32, 3)


def test_images_under_other_names_that_are_refused_or_left_out(tmp_path):
    many(tmp_path, 4)
    (tmp_path / "heic.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (tmp_path / "camera.nef").write_bytes(encoded(image(), "TIFF"))
    (tmp_path / "sprite.dds").write_bytes(b"DDS " + bytes(200))
    (tmp_path / "P5 notes").write_text("P5 begins as a PGM file does")
    found = folder.image_folder(str(tmp_path), 32, 3, on_bad="skip")
    rows = [row[:1] + row[2:] for row in found.inventory]
    assert ("left out", "DDS", "sprite.dds") in rows
    assert ("left out", "text", "P5 notes") in rows
    assert {row[2] for row in rows if row[0] == "refused"} == {"heic.jpg", "camera.nef"}
    assert len(found) == 4


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_archives_of_images_are_read_without_unpacking(tmp_path, suffix):
    from tests.data.test_listing import archive_of_images

    archive_of_images(tmp_path / f"edm{suffix}", count=5)
    if suffix == ".zip":
        with zipfile.ZipFile(tmp_path / "edm.zip", "a") as archive:
            archive.writestr("dataset.json", '{"labels": null}')
    expected = np.stack([image(seed=seed) for seed in range(5)])
    alone = folder.image_folder(str(tmp_path / f"edm{suffix}"), 32, 3)
    np.testing.assert_array_equal(alone[np.arange(5)], expected)
    archive_of_images(tmp_path / f"more{suffix}", count=4)
    both = folder.image_folder(str(tmp_path), 32, 3, cache_dir=tmp_path / ".cache")
    np.testing.assert_array_equal(both[np.arange(9)], np.concatenate([expected, expected[:4]]))
    many(tmp_path / "loose", 4)
    beside = folder.image_folder(str(tmp_path), 32, 3)
    assert len(beside) == 4
    assert [row[1] for row in beside.inventory if row[2].startswith("archive beside images")] == ["2"]


def test_a_bad_member_of_an_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for seed in range(5):
            archive.writestr(f"{seed}.png", encoded(image(seed=seed))[: 200 if seed == 2 else None])
    with pytest.raises(UserError, match=r"1 of 5 images are unusable: x\.zip/2\.png \(damaged or truncated"):
        folder.image_folder(str(tmp_path / "x.zip"), 32, 3)
    assert len(folder.image_folder(str(tmp_path / "x.zip"), 32, 3, on_bad="skip")) == 4


def deep(root, arrays, kind="PNG"):
    for index, array in enumerate(arrays):
        (root / f"{index}.{kind.lower()}").write_bytes(encoded(array, kind))


def test_twelve_bits_in_sixteen_are_refused_with_their_range_and_scaled_when_it_is_set(tmp_path):
    deep(tmp_path, [ramp(np.uint16, 4095)] * 4)
    with pytest.raises(
        UserError, match=r"4 images deeper than 8 bits.*from 0 to 4095: set --config\.data\.value_range=.*\(0,4095\)"
    ):
        folder.image_folder(str(tmp_path), 32, 1)
    found = folder.image_folder(str(tmp_path), 32, 1, value_range=(0, 4095))
    np.testing.assert_array_equal(found[np.array([0])][0, ..., 0], np.rint(ramp(np.uint16, 4095) / 4095 * 255))


def test_sixteen_bits_and_floats_have_one_reading_for_the_set(tmp_path, caplog):
    deep(tmp_path, [ramp(np.uint16, 65535)] * 3 + [ramp(np.uint16, 4095)])
    with caplog.at_level(logging.INFO):
        found = folder.image_folder(str(tmp_path), 32, 1)[np.arange(4)]
    np.testing.assert_array_equal(found[0, ..., 0], ramp(np.uint16, 65535) // 257)
    assert "with values from 0 to 65535: 0 become black, 65535 white" in caplog.text
    assert "1 of 4 deep images have no value above 16383.8, a quarter of the range, such as 3.png" in caplog.text
    signed = tmp_path / "signed"
    signed.mkdir()
    deep(signed, [ramp(np.float32, 2.0) - 1.0, ramp(np.float32, 1.0), *[ramp(np.float32, 0.5)] * 2], "TIFF")
    found = folder.image_folder(str(signed), 32, 1)[np.arange(4)]
    np.testing.assert_array_equal(found[1, ..., 0], np.rint((ramp(np.float32, 1.0) + 1) * 127.5))
    far = tmp_path / "far"
    far.mkdir()
    deep(far, [ramp(np.float32, 80.0)] * 4, "TIFF")
    with pytest.raises(UserError, match=r"with values from 0 to 80: set --config\.data\.value_range"):
        folder.image_folder(str(far), 32, 1)


def test_sets_that_use_a_small_part_of_the_range(tmp_path, caplog):
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encoded((image(seed=seed) > 128).astype(np.uint8)))
    with pytest.raises(UserError, match="holds black images only, with values from 0 to 1 of 255"):
        folder.image_folder(str(tmp_path), 32, 3)
    (tmp_path / "dark.png").write_bytes(encoded(image() // 8))
    with caplog.at_level(logging.WARNING):
        folder.image_folder(str(tmp_path), 32, 3)
    assert "the values of all images lie in 0 to 31 of 0 to 255" in caplog.text
    assert "4 images are black, with no value above 1 of 255, such as 0.png" in caplog.text


def test_unreadable_folders_fall_under_the_policy(tmp_path, monkeypatch):
    many(tmp_path, 4)
    many(tmp_path / "shut", 2)
    scan = os.scandir

    def deny(path):
        if pathlib.Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", deny)
    with pytest.raises(UserError, match=r"shut \(unreadable folder: Permission denied\)"):
        folder.image_folder(str(tmp_path), 32, 3)
    assert len(folder.image_folder(str(tmp_path), 32, 3, on_bad="skip")) == 4


def test_a_height_and_a_width(tmp_path):
    wide = image(96, 64, seed=1)
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encoded(wide))
    found = folder.image_folder(str(tmp_path), (16, 24), 3)
    assert found.shape == (4, 16, 24, 3)
    box = wide.reshape(16, 4, 24, 4, 3).mean((1, 3))  # the same aspect: nothing is cropped, and 4 is a power of 2
    np.testing.assert_allclose(found[np.array([0])][0], box, atol=2)  # each halving rounds
    tall = folder.image_folder(str(tmp_path), (64, 32), 3)[np.array([0])][0]
    np.testing.assert_array_equal(tall, wide[:, 32:64])  # the centred part of that aspect
    cropped = folder.image_folder(str(tmp_path), (16, 24), 3, crop=16)[np.array([0])][0]
    np.testing.assert_array_equal(cropped, wide[24:40, 36:60])


def test_crop_is_centred_and_resize_averages():
    ramp = np.zeros((40, 60, 3), np.uint8)
    ramp[:, 10:50, 0] = np.arange(40) * 4  # the centred square is columns 10 to 49
    square = records.fit(Image.fromarray(ramp), 40, 3)
    np.testing.assert_array_equal(square, ramp[:, 10:50])
    np.testing.assert_array_equal(records.fit(Image.fromarray(ramp), 20, 3, crop=20), ramp[10:30, 20:40])
    halved = records.fit(Image.fromarray(ramp), 20, 3)
    np.testing.assert_allclose(halved[..., 0], np.tile(np.arange(20) * 8 + 2, (20, 1)), atol=1)


@pytest.mark.parametrize(
    ("options", "paths", "message"),
    [
        ({"channels": 2}, ["a"], r"channels=2 is not supported: set 1 \(grey\) or 3 \(RGB\)"),
        ({"size": 0}, ["a"], "size=0 is out of range"),
        ({"size": (8, 0)}, ["a"], r"size=\(8, 0\) is out of range: set a side in \[1, inf\), or \(height, width\)"),
        ({"size": (8, 8, 3)}, ["a"], r"size=\(8, 8, 3\) is out of range"),
        ({"size": 8.5}, ["a"], r"size=8\.5 is out of range"),
        ({"size": "8x8"}, ["a"], "size='8x8' is out of range"),
        ({"crop": -1}, ["a"], "crop=-1 is out of range"),
        ({"on_bad": "ignore"}, ["a"], "on_bad_image='ignore' is unknown: set one of fail, skip"),
        ({}, [], "holds no images"),
    ],
)
def test_arguments_out_of_range_are_refused(options, paths, message):
    with pytest.raises(InvalidArgument, match=message):
        records.Images(
            file_records.Files(pathlib.Path(), [listing.Entry(p, 1, 1) for p in paths]), **{"size": 8, "channels": 3} | options
        )
