"""One image: its pixels are those that a careful viewer shows, and every fault is one message."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from advdiff_jax.data import decoding
from advdiff_jax.errors import InvalidArgument
from tests.data import mutations
from tests.data.files import SIDE, chunk, encoded, gamma_profile, noise, png, quarters, ramp, srgb_encode

# Orientation -> what a writer does to an upright image before it stores it (EXIF 2.3, tag 274).
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


def pixels(data, mode="RGB", **options):
    return np.asarray(decoding.decode(data, mode, **options).image)


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found


@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_turned_upright(orientation):
    upright = noise(24, 40)
    stored = np.ascontiguousarray(STORED[orientation](upright))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        found = decoding.decode(encoded(stored, kind, exif=exif(orientation), **options))
        np.testing.assert_array_equal(np.asarray(found.image), upright, err_msg=kind)
    assert decoding.decode(encoded(stored, exif=exif(orientation))).notes == ("turned upright by EXIF",) * (orientation > 1)
    blocks = np.ascontiguousarray(STORED[orientation](quarters()))
    jpeg = pixels(encoded(blocks, "JPEG", quality=95, subsampling=0, exif=exif(orientation)))
    np.testing.assert_allclose(jpeg.astype(int), quarters(), atol=3)


def test_damaged_exif_data_do_not_make_an_image_bad():
    data = encoded(noise(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(data), noise())


def test_a_transparent_colour_is_white_in_every_mode():
    x = quarters()
    rgb = png(SIDE, SIDE, 8, 2, [row.tobytes() for row in x], (b"tRNS", struct.pack(">HHH", 0, 255, 0)))
    expected = np.where((x == (0, 255, 0)).all(-1, keepdims=True), 255, x)
    np.testing.assert_array_equal(pixels(rgb), expected)
    np.testing.assert_array_equal(pixels(rgb, "L"), np.asarray(Image.fromarray(expected.astype(np.uint8)).convert("L")))

    deep = np.repeat(x.astype(np.uint16) * 257, 1, 2).astype(">u2")
    rgb16 = png(SIDE, SIDE, 16, 2, [row.tobytes() for row in deep], (b"tRNS", struct.pack(">HHH", 0, 65535, 0)))
    np.testing.assert_array_equal(pixels(rgb16), expected)

    drawing = np.zeros((SIDE, SIDE), np.uint8)
    drawing[8:24, 8:24] = 200
    expected = np.where(drawing == 0, 255, drawing)
    grey = png(SIDE, SIDE, 8, 0, [row.tobytes() for row in drawing], (b"tRNS", struct.pack(">H", 0)))
    grey16 = png(SIDE, SIDE, 16, 0, [(row.astype(">u2") * 257).tobytes() for row in drawing], (b"tRNS", struct.pack(">H", 0)))
    for data in (grey, grey16):
        np.testing.assert_array_equal(pixels(data, "L"), expected)
        np.testing.assert_array_equal(pixels(data), np.repeat(expected[..., None], 3, 2))

    two_bits = png(SIDE, SIDE, 2, 0, [bytes([0b00011011] * (SIDE // 4))] * SIDE, (b"tRNS", struct.pack(">H", 2)))
    np.testing.assert_array_equal(pixels(two_bits, "L")[0, :4], [0, 85, 255, 255])  # 170 is the transparent one


def test_transparency_of_palettes_and_alpha_is_laid_on_white():
    palette = Image.fromarray(quarters()).quantize(4)
    index = palette.getpixel((SIDE - 1, 0))
    expected = np.where((quarters() == (0, 255, 0)).all(-1, keepdims=True), 255, quarters())
    np.testing.assert_array_equal(pixels(encoded(palette, transparency=index)), expected)
    half = bytes(128 if i == index else 255 for i in range(4))
    np.testing.assert_allclose(pixels(encoded(palette, transparency=half))[0, -1], [127, 255, 127], atol=1)
    np.testing.assert_array_equal(pixels(encoded(palette, "GIF", transparency=index)), expected)

    for channels, mode in ((4, "RGBA"), (2, "LA")):
        x = noise(channels=channels)
        colour, alpha = x[..., :-1].astype(float), x[..., -1:] / 255
        found = pixels(encoded(Image.fromarray(x, mode)))
        np.testing.assert_allclose(found, np.broadcast_to(colour * alpha + 255 * (1 - alpha), found.shape), atol=1)
    assert np.all(pixels(encoded(np.zeros((8, 8, 4), np.uint8)), "L") == 255)  # black under full transparency


def test_sixteen_bits_are_scaled_by_257():
    x = ramp(np.uint16, 65535)
    found = decoding.decode(encoded(x), "L")
    np.testing.assert_array_equal(np.asarray(found.image), x // 257)
    assert (found.mode, found.values) == ("I;16", (0.0, 65535.0))
    big_endian = encoded(Image.frombytes("I;16B", (SIDE, SIDE), x.astype(">u2").tobytes()), "TIFF")
    np.testing.assert_array_equal(pixels(big_endian, "L"), x // 257)
    pgm = f"P5 {SIDE} {SIDE} 65535\n".encode() + x.astype(">u2").tobytes()
    np.testing.assert_array_equal(pixels(pgm, "L"), x // 257)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_inverted(dtype):
    x = ramp(dtype, np.iinfo(dtype).max)
    data = encoded(x, "TIFF")
    photometric = struct.pack("<HHI", 262, 3, 1)
    assert photometric + b"\1" in data
    inverted = data.replace(photometric + b"\1", photometric + b"\0")
    scale = 1 if dtype == np.uint8 else 257
    np.testing.assert_array_equal(pixels(data, "L"), x // scale)
    np.testing.assert_array_equal(pixels(inverted, "L"), (np.iinfo(dtype).max - x) // scale)


def test_a_range_of_values_is_scaled_and_clipped():
    twelve = encoded(ramp(np.uint16, 4095))
    np.testing.assert_array_equal(pixels(twelve, "L", value_range=(0, 4095)), np.rint(ramp(np.uint16, 4095) / 4095 * 255))
    assert decoding.decode(twelve).values == (0.0, 4095.0)
    window = pixels(encoded(ramp(np.float32, 10.0), "TIFF"), "L", value_range=(2.0, 6.0))[0]
    np.testing.assert_array_equal(window, np.rint(np.clip((ramp(np.float32, 10.0)[0] - 2) / 4, 0, 1) * 255))


def test_floats_and_32_bit_integers_are_scaled_or_refused_with_their_range():
    unit = ramp(np.float32, 1.0)
    np.testing.assert_array_equal(pixels(encoded(unit, "TIFF"), "L"), np.rint(unit * 255))
    for x, said in (
        (ramp(np.float32, 80.0), r"lie in 0 to 80, not in 0 to 1: set --config\.data\.value_range"),
        (ramp(np.float32, 1.0) - 0.5, r"lie in -0\.5 to 0\.5, not in 0 to 1"),
        (ramp(np.int32, 1_000_000), r"lie in 0 to 1e\+06, not in 0 to 65535"),
        (-ramp(np.int32, 300), r"lie in -300 to 0, not in 0 to 65535"),
        (np.full((8, 8), np.nan, np.float32), "not all finite"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            decoding.decode(encoded(x, "TIFF"))


def test_an_icc_profile_is_converted_to_srgb():
    """A profile with sRGB's primaries and another curve: the conversion is the curves alone."""
    levels = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    for gamma in (1.0, 1.8):
        expected = srgb_encode((levels / 255) ** gamma)
        for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
            found = decoding.decode(encoded(levels, kind, icc_profile=gamma_profile(gamma), **options))
            np.testing.assert_allclose(np.asarray(found.image), expected, atol=1.01, err_msg=kind)
            assert found.notes == ("converted to sRGB by their ICC profile or gAMA",)
        see_through = np.dstack([levels, np.full((16, 16, 1), 128, np.uint8)])
        found = pixels(encoded(see_through, icc_profile=gamma_profile(gamma)))
        np.testing.assert_allclose(found, expected * 128 / 255 + 127, atol=2)
        grey = encoded(levels[..., 0], icc_profile=gamma_profile(gamma, "GRAY"))
        np.testing.assert_allclose(pixels(grey, "L"), expected[..., 0], atol=1.01)
    palette = Image.fromarray(quarters()).quantize(4)
    np.testing.assert_allclose(
        pixels(encoded(palette, icc_profile=gamma_profile(1.0))), srgb_encode(quarters() / 255), atol=1.01
    )


def test_profiles_that_change_nothing_or_are_damaged():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, notes in (
        (srgb, ()),
        (b"not a profile" * 20, ("damaged ICC profile, ignored",)),
        (srgb[:200], ("damaged ICC profile, ignored",)),
        (gamma_profile(1.0, "GRAY"), ("ICC profile of another colour space, ignored",)),
    ):
        found = decoding.decode(encoded(noise(), icc_profile=profile))
        np.testing.assert_array_equal(np.asarray(found.image), noise())
        assert found.notes == notes


def with_chunks(data, *chunks):
    """A PNG with more chunks behind its IHDR."""
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(100_000 * gamma))


def chrm(*corners):
    return b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in corners))


ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # white, red, green, blue
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.35])
def test_the_gamma_of_a_png_is_that_of_a_browser(gamma):
    for image in (noise(), noise(channels=1)):
        found = decoding.decode(with_chunks(encoded(image), gama(gamma)), "RGB" if image.ndim == 3 else "L")
        expected = srgb_encode((image / 255) ** (1 / gamma))
        assert np.abs(np.asarray(found.image) - expected).max() <= 1.0
        assert found.notes == ("converted to sRGB by their ICC profile or gAMA",)


def test_the_primaries_of_a_png_are_those_of_a_browser():
    """Adobe RGB to sRGB in linear light, as published by B. Lindbloom; values outside sRGB are clipped."""
    found = decoding.decode(with_chunks(encoded(noise()), gama(256 / 563), chrm(*ADOBE)))
    matrix = np.array([[1.3983, -0.3983, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]])
    light = np.clip((noise() / 255) ** (563 / 256) @ matrix.T, 0.0, 1.0)
    assert np.abs(np.asarray(found.image) - srgb_encode(light)).max() <= 2.0
    assert np.abs(np.asarray(found.image).astype(int) - noise()).max() > 30
    assert found.notes == ("converted to sRGB by their ICC profile or gAMA",)


def test_gamma_that_says_srgb_or_stands_beside_a_profile_or_makes_no_sense_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data, notes in (
        (with_chunks(encoded(noise()), gama(0.45455)), ()),
        (with_chunks(encoded(noise()), gama(0.45455), chrm(*SRGB)), ()),
        (with_chunks(encoded(noise()), chrm(*SRGB)), ()),
        (with_chunks(encoded(noise()), gama(1.0), (b"sRGB", b"\0")), ()),
        (with_chunks(encoded(noise(), icc_profile=srgb), gama(1.0)), ()),
        (with_chunks(encoded(noise()), gama(0.0)), ("damaged gAMA or cHRM, ignored",)),
        (with_chunks(encoded(noise()), gama(0.45455), chrm(*[0.0] * 8)), ("damaged gAMA or cHRM, ignored",)),
        (with_chunks(encoded(noise()), chrm(*[0.3] * 8)), ("damaged gAMA or cHRM, ignored",)),
    ):
        found = decoding.decode(data)
        np.testing.assert_array_equal(np.asarray(found.image), noise())
        assert found.notes == notes


@pytest.mark.parametrize("tags", [{0xA001: 65535}, {0xA001: 2}, "R03"])
def test_another_colour_space_by_exif_alone_is_counted(tags):
    """Browsers show such files as sRGB, and so does this; cameras write it without a profile."""
    data = Image.Exif()
    data.get_ifd(0x8769).update(tags if isinstance(tags, dict) else {0xA001: 65535, 0xA005: {1: tags}})
    image = Image.fromarray(noise())
    plain, found = (decoding.decode(encoded(image, "JPEG", **more)) for more in ({}, {"exif": data}))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(plain.image))
    (note,) = found.notes
    assert note.startswith("Adobe RGB or an unknown colour space by EXIF, without ICC profile: taken as sRGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decoding.decode(encoded(image, "JPEG", exif=data, icc_profile=srgb)).notes == ()


def test_the_first_frame_of_an_animation_is_used_and_noted():
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
    rest = {"save_all": True, "append_images": frames[1:]}
    several = "several frames, the first is used"
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        found = decoding.decode(encoded(frames[0], kind, **rest, **options))
        np.testing.assert_array_equal(np.asarray(found.image), noise(seed=0))
        assert several in found.notes
    flat = [Image.fromarray(np.full((SIDE, SIDE, 3), level, np.uint8)) for level in (10, 128, 255)]
    assert np.all(pixels(encoded(flat[0], "GIF", save_all=True, append_images=flat[1:])) == 10)


def test_the_title_of_an_apng_is_no_frame():
    title, *frames = (Image.fromarray(noise(channels=4, seed=seed)) for seed in range(3))
    data = encoded(title, save_all=True, append_images=frames, default_image=True)
    alone = pixels(encoded(frames[0]))  # on an empty canvas, not on the title
    np.testing.assert_array_equal(pixels(data), alone)
    broken = decoding.decode(data[: data.index(b"fdAT") - 4])
    np.testing.assert_array_equal(np.asarray(broken.image), pixels(encoded(title)))
    assert "damaged animation, its still image is used" in broken.notes


def test_a_thumbnail_before_the_image_of_a_tiff_is_passed_over():
    pages = [Image.fromarray(noise(8, 8)), Image.fromarray(noise(32, 24))]
    from PIL import TiffImagePlugin

    small, large = TiffImagePlugin.ImageFileDirectory_v2(), TiffImagePlugin.ImageFileDirectory_v2()
    small[254], large[254] = 1, 0
    pages[0].encoderinfo, pages[1].encoderinfo = {"tiffinfo": small}, {"tiffinfo": large}
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], tiffinfo=small)
    np.testing.assert_array_equal(pixels(file.getvalue()), noise(32, 24))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_jpeg_that_ends_early_is_refused_though_it_has_an_end(mode, share):
    data = encoded(Image.fromarray(noise(128, 128)).convert(mode), "JPEG", quality=90)
    with pytest.raises(InvalidArgument, match="truncated: its data end early, and the rows from"):
        decoding.decode(data[: int(len(data) * share)] + b"\xff\xd9")
    assert decoding.decode(data).notes == ()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_progressive_jpeg_that_ends_early_is_found_by_a_thorough_look(share):
    data = encoded(noise(128, 128), "JPEG", quality=90, progressive=True)
    with pytest.raises(InvalidArgument, match="truncated"):
        decoding.decode(data[: int(len(data) * share)] + b"\xff\xd9", thorough=True)
    decoding.decode(data, thorough=True)


def test_a_hole_of_zeros_in_a_jpeg_is_damage():
    data = bytearray(encoded(noise(128, 128), "JPEG", quality=90))
    data[len(data) // 2 : len(data) // 2 + 2048] = bytes(2048)
    with pytest.raises(InvalidArgument, match="a hole of 512 or more zero bytes"):
        decoding.decode(bytes(data), thorough=True)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_flat_images_and_flat_borders_are_sound(options, level):
    flat = np.full((600, 600, 3), level, np.uint8)
    border = flat.copy()
    border[:200] = noise(600, 200)
    for x in (flat, flat[..., 0], border):
        found = pixels(encoded(x, "JPEG", quality=95, **options), thorough=True)
        np.testing.assert_array_equal(found[300:], np.full((300, 600, 3), level))


@pytest.mark.parametrize("trailing", [b"", bytes(4096), b"\r\n", encoded(noise(8, 8), "JPEG")])
def test_bytes_behind_a_jpeg_do_no_harm(trailing):
    grey = encoded(np.full((64, 64, 3), 128, np.uint8), "JPEG")
    assert np.all(pixels(grey + trailing, thorough=True) == 128)


def test_an_uncompressed_tiff_shorter_than_its_pixels_is_truncated():
    data = encoded(noise(64, 64), "TIFF")
    with pytest.raises(InvalidArgument, match=r"truncated|damaged"):
        decoding.decode(data[:-500])
    wide = data.replace(struct.pack("<HHII", 256, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 64_000))
    assert wide != data
    with pytest.raises(InvalidArgument, match="truncated: 64000x64 pixels need 12,288,000 bytes"):
        decoding.decode(wide)


def test_too_large_is_not_damaged():
    side = 20_000
    blank = zlib.compressobj()
    rows = blank.compress(bytes(side // 8 + 1) * 64) + blank.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    long = encoded(np.zeros((2, 200_000), np.uint8))
    with pytest.raises(InvalidArgument, match=r"^too large: 200000x2 pixels, limit 100,000 a side; shrink it first$"):
        decoding.decode(long)
    with pytest.raises(InvalidArgument, match=r"^too large: 400 MP, limit 179 MP; shrink it first$"):
        decoding.decode(data)


def test_large_metadata_are_no_damage():
    text = bytes(np.random.default_rng(0).integers(97, 123, 3_000_000, dtype=np.uint8))
    rows = [row.tobytes() for row in noise()]
    for extra in (
        (b"tEXt", b"Comment\0" + text),
        (b"zTXt", b"Comment\0\0" + zlib.compress(text, 1)),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(text, 1)),
        (b"iCCP", b"large\0\0" + zlib.compress(gamma_profile(2.2) + bytes(3_000_000))),
    ):
        found = pixels(png(SIDE, SIDE, 8, 2, rows, extra))
        expected = srgb_encode((noise() / 255) ** 2.2) if extra[0] == b"iCCP" else noise()
        np.testing.assert_allclose(found, expected, atol=1.01 if extra[0] == b"iCCP" else 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (b"hello", "text, not an image"),
        (bytes(100), "not an image of a known format"),
        (b"<!DOCTYPE html><title>404 Not Found</title>", "HTML, not PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC, not PNG.*convert it to JPEG or PNG"),
        (b"DDS " + bytes(200), "DDS, not PNG"),
        (encoded(noise())[:1000], "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged or truncated: it begins as PNG, but cannot be read"),
        (encoded(noise(), "WEBP")[:300], "damaged or truncated"),
        (encoded(noise(64, 64), "JPEG")[:900], "damaged or truncated"),
        (encoded(noise(64, 64), "GIF")[:900], "damaged or truncated"),
        (encoded(noise(64, 64), "BMP")[:900], "damaged or truncated"),
    ],
)
def test_what_is_no_image_or_damaged_is_said(data, said):
    with pytest.raises(InvalidArgument, match=said):
        decoding.decode(data)


@pytest.mark.parametrize(
    "error", [NotImplementedError("x"), RuntimeError("x\ny"), AttributeError(), struct.error("x"), MemoryError(), IndexError()]
)
def test_whatever_a_decoder_raises_is_a_bad_image(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(decoding.Image, "open", fail)
    with pytest.raises(InvalidArgument) as caught:
        decoding.decode(encoded(noise()))
    assert "\n" not in str(caught.value)


def test_an_interrupt_is_no_bad_image(monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding.Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decoding.decode(encoded(noise()))


def test_mutated_files_decode_or_are_refused():
    """Nothing else is raised; MUTATIONS=200000 tries as many."""
    count = int(os.environ.get("MUTATIONS", 2000))
    for data in mutations.seeds():
        decoding.decode(data)
    refused = 0
    for index, data in enumerate(mutations.mutated(count)):
        try:
            found = decoding.decode(data, ("L", "RGB")[index % 2], thorough=index % 3 == 0)
        except InvalidArgument:
            refused += 1
        else:
            assert found.image.mode == ("L", "RGB")[index % 2]
    assert 0.5 < refused / count < 0.95


def test_images_without_any_of_this_decode_as_pillow_converts_them():
    x = noise(31, 17)
    for mode in ("RGB", "L", "P", "1", "CMYK"):
        image = Image.fromarray(x).convert(mode)
        kinds = ("JPEG", "TIFF") if mode == "CMYK" else ("PNG", "TIFF", "BMP")
        for kind in kinds:
            opened = Image.open(io.BytesIO(encoded(image, kind)))
            for target in ("L", "RGB"):
                np.testing.assert_array_equal(pixels(encoded(image, kind), target), np.asarray(opened.convert(target)))
