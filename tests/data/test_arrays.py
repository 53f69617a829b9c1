"""Arrays: images in every layout that people keep come out as the same bytes, and what has several readings is refused."""

import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.data import arrays, sources
from advdiff_jax.errors import UserError
from tests.data.files import noise

IMAGES = np.stack([noise(12, 16, seed=seed) for seed in range(7)])
GREY = np.stack([noise(12, 16, 1, seed=seed) for seed in range(7)])
SOME = np.array([3, 0, 3])


def opened(path, channels=3, size=(16, 12), **options):
    return arrays.image_array(str(path), size, channels, **options)


@pytest.mark.parametrize(
    "stored",
    [
        IMAGES,
        np.asfortranarray(IMAGES),
        IMAGES.transpose(0, 3, 1, 2),
        IMAGES.astype(np.int64),
        IMAGES.astype(">i2"),
        IMAGES.astype(np.float32),  # whole numbers from 0 to 255
        IMAGES.astype(">u2") * 257,
        (IMAGES / 255).astype(np.float32),
        (IMAGES / 255).astype(np.float16),
        IMAGES.transpose(0, 3, 1, 2) / 127.5 - 1,
    ],
    ids=["as it is", "fortran", "NCHW", "int64", "big-endian", "0..255", "16 bits", "0..1", "half", "-1..1 NCHW"],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_with_one_reading_come_out_the_same(tmp_path, stored, suffix, caplog):
    path = tmp_path / f"x{suffix}"
    np.save(path, stored) if suffix == ".npy" else np.savez(path, labels=np.arange(7), x=stored)
    with caplog.at_level(logging.INFO):
        found = opened(path)
    assert (found.shape, found.dtype, len(found)) == ((7, 16, 12, 3), np.uint8, 7)
    for copy in (found, pickle.loads(pickle.dumps(found))):  # as a worker process opens it
        np.testing.assert_array_equal(copy[SOME], IMAGES[SOME])
    assert "is read as images [N, " in caplog.text
    if suffix == ".npy":
        assert len(pickle.dumps(found)) < 1500  # the path, not the array


@pytest.mark.parametrize(
    "stored",
    [GREY, GREY[..., None], GREY[:, None], GREY.reshape(7, -1), GREY / np.float32(255)],
    ids=["NHW", "NHWC", "NCHW", "flat", "float"],
)
def test_grey_with_and_without_a_channel_axis(tmp_path, stored):
    np.save(tmp_path / "x.npy", stored)
    np.testing.assert_array_equal(opened(tmp_path / "x.npy", 1)[SOME], GREY[SOME, ..., None])


def test_booleans_are_black_and_white(tmp_path):
    np.save(tmp_path / "x.npy", GREY > 100)
    np.testing.assert_array_equal(opened(tmp_path / "x.npy", 1)[SOME], 255 * (GREY[SOME, ..., None] > 100))


def test_transparency_is_laid_on_white_as_in_files(tmp_path):
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    rgba = np.concatenate([np.repeat(every[..., :1], 3, 2), every[..., 1:]], 2)[None].repeat(4, 0)
    white = Image.new("RGBA", (256, 256), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba[0])).convert("RGB"))
    for name, stored in (("nhwc", rgba), ("nchw", rgba.transpose(0, 3, 1, 2)), ("float", rgba / 255)):
        np.save(tmp_path / f"{name}.npy", stored)
        np.testing.assert_array_equal(opened(tmp_path / f"{name}.npy", size=256)[np.array([2])][0], expected)


def test_a_range_that_is_set_is_scaled_and_clipped(tmp_path):
    np.save(tmp_path / "mask.npy", (GREY > 100).astype(np.uint8))
    found = opened(tmp_path / "mask.npy", 1, value_range=(0, 1))
    np.testing.assert_array_equal(found[SOME], 255 * (GREY[SOME, ..., None] > 100))
    np.save(tmp_path / "ct.npy", GREY.astype(np.int16) * 16 - 1000)
    found = opened(tmp_path / "ct.npy", 1, value_range=(0, 2000))
    expected = np.rint(np.clip(GREY[SOME, ..., None].astype(float) * 16 - 1000, 0, 2000) / 2000 * 255)
    np.testing.assert_array_equal(found[SOME], expected)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (np.minimum(IMAGES, 1), r"uint8 \[7, 16, 12, 3\] has values from 0 to 1, which have several readings: set --config"),
        (IMAGES.astype(np.uint16) * 16, r"from 0 to 4080, .*value_range=\(BLACK,WHITE\).*such as \(0,4080\)"),
        (IMAGES * 0.37, "float64 .* has values from 0 to 94.35, which have several readings"),
        (IMAGES / 64.0 - 2, "has values from -2 to 1.98"),
        (IMAGES.astype(np.int32) - 128, "has values from -128 to 127"),
        (np.where(IMAGES == 0, np.nan, IMAGES), "holds values that are not finite"),
        (np.full_like(IMAGES, 7), "has one value only, 7"),
    ],
)
def test_values_with_several_readings_are_refused(tmp_path, stored, said):
    np.save(tmp_path / "x.npy", stored)
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (
            IMAGES[:, :8],
            r"no array of images \[N, 16, 12, 3\] \(found: x: uint8 \[7, 8, 12, 3\]\): set --config.data.size='\(8, 12\)'",
        ),
        (IMAGES[:, :12].transpose(0, 3, 1, 2), r"set --config\.data\.size=12 --config\.data\.channels=3"),
        (GREY, r"x is grey: set --config\.data\.channels=1"),
        (GREY.reshape(7, -1), r"x is grey: set --config\.data\.channels=1"),
        (IMAGES.reshape(7, -1), r"the rows of x are flat: .*reshape\(-1, 16, 12, 3\)\).* x\.reshape\(-1, 3, 16, 12\)"),
        (IMAGES[0], "x is a single image"),
        (IMAGES[:0], r"uint8 \[0, 16, 12, 3\]"),
        (np.uint8(3), r"uint8 \[\]"),
        (np.array([{"a": 1}], dtype=object), "holds pickled objects: save one array of numbers"),
        (np.zeros((7, 5), np.float32), r"for points \[N, D\], set --config\.data\.source=points"),
        (IMAGES.astype(complex), r"complex128 \[7, 16, 12, 3\]"),
        (np.array(["a", "b"]), r"str\d* \[2\]"),
    ],
)
def test_other_arrays_are_named_with_the_conversion(tmp_path, stored, said):
    np.savez(tmp_path / "y.npz", x=stored)
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "y.npz")


def test_one_of_several_arrays_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, y=np.arange(24), test=IMAGES[:4], train=IMAGES, junk=np.array([{}], dtype=object))
    with pytest.raises(
        UserError, match=r"several arrays that fit \(test: .*, train: .*\): set --config\.data\.array_key=test or train"
    ):
        opened(path)
    read = []
    getitem = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, key: read.append(key) or getitem(self, key))
    np.testing.assert_array_equal(opened(path, array_key="train")[SOME], IMAGES[SOME])
    assert read == ["train"]  # and no other member
    with pytest.raises(UserError, match=r"array_key='val' is no array of .*: set one of y, test, train, junk"):
        opened(path, array_key="val")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.npy", b"hello", "is not a readable .npy or .npz file, but text"),
        ("x.npy", b"\x89HDF\r\n\x1a\n" + bytes(99), "but HDF5: save its images as an .npy file"),
        ("x.npy", pickle.dumps(IMAGES), "but Python pickle: save its images as an .npy file"),
        ("x.npz", b"", "but empty"),
        ("x.pt", b"PK\x03\x04" + bytes(99), "is not a readable .npy or .npz file"),
        ("x.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran", "is not a readable .npy or .npz file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        opened(tmp_path / name)


def test_damaged_files(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    np.savez(tmp_path / "x.npz", x=IMAGES)
    np.save(tmp_path / "objects.npy", np.array([IMAGES[0], IMAGES[1][:8]], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:1000])
    for name in ("x.npy", "x.npz", "nowhere.npz"):
        with pytest.raises(UserError, match=f"{name}' is not a readable .npy or .npz file"):
            opened(tmp_path / name)
    with pytest.raises(UserError, match="holds pickled objects: save one array of numbers"):
        opened(tmp_path / "objects.npy")
    np.savez(tmp_path / "y.npz", x=IMAGES)
    data = bytearray((tmp_path / "y.npz").read_bytes())
    data[2000] ^= 255
    (tmp_path / "y.npz").write_bytes(data)
    with pytest.raises(UserError, match="its array x is damaged"):
        opened(tmp_path / "y.npz")


def test_a_small_part_of_the_range_is_a_warning(tmp_path, caplog):
    np.save(tmp_path / "x.npy", IMAGES // 8)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(opened(tmp_path / "x.npy")[SOME], IMAGES[SOME] // 8)
    assert "has values from 0 to 31 only, of 0 to 255" in caplog.text


def test_points_keep_their_units(tmp_path, caplog):
    points = np.random.default_rng(0).normal(3.0, 2.0, (50, 5))
    np.savez(tmp_path / "x.npz", points=points, labels=np.arange(50))
    with caplog.at_level(logging.INFO):
        found = arrays.point_array(str(tmp_path / "x.npz"))
    np.testing.assert_array_equal(found, points.astype(np.float32))
    assert "points: float64 [50, 5] are points, with values from" in caplog.text
    source = sources.points(found)
    drawn = source.clean(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(np.sort(drawn, 0), np.sort(found, 0))
    np.savez(tmp_path / "x.npz", a=points, b=points)
    with pytest.raises(UserError, match=r"several arrays of points .*array_key=a or b"):
        arrays.point_array(str(tmp_path / "x.npz"))
    np.testing.assert_array_equal(arrays.point_array(str(tmp_path / "x.npz"), "b"), found)
    np.save(tmp_path / "y.npy", np.full((4, 2), np.inf))
    with pytest.raises(UserError, match="not finite"):
        arrays.point_array(str(tmp_path / "y.npy"))
    np.save(tmp_path / "y.npy", IMAGES)
    with pytest.raises(UserError, match=r"holds no points \[N, D\] of numbers \(found: y\.npy: uint8"):
        arrays.point_array(str(tmp_path / "y.npy"))
