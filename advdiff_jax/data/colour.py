"""Colours of a decoded image, converted to sRGB by the file's ICC profile, or by the gAMA and cHRM chunks of a PNG."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from advdiff_jax.data import png_colour

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # mode that is converted -> colour space of its profiles
_SAME = 1  # levels by which a profile may differ from sRGB and count as sRGB: rounding
_OPTIONS = {"L": ImageCms.Flags.NOOPTIMIZE}  # LittleCMS's table of a grey curve is wrong by up to 10 levels in the shadows
_EXIF_IFD, _INTEROP_IFD, _COLOR_SPACE = 0x8769, 0xA005, 0xA001


def profile_of(image: Image.Image, kind: str, notes: list[str]) -> bytes | None:
    """Returns the ICC profile of an opened file, or the one that a PNG's chunks stand for, or None."""
    found = image.info.get("icc_profile")
    if found:
        return found
    if kind == "PNG":
        try:
            return png_colour.profile(image.info, image.mode in ("1", "L", "LA") or image.mode.startswith("I"))
        except Exception:  # numbers that make no sense
            notes.append("damaged gAMA or cHRM, ignored")
    elif _is_wide(image):
        notes.append("Adobe RGB or an unknown colour space by EXIF, without ICC profile: taken as sRGB, as browsers do")
    return None


def _is_wide(image):
    """Says whether the EXIF data name Adobe RGB, in one of the two ways of cameras, or "not calibrated"."""
    try:
        exif = image.getexif()
        return exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE) in (2, 65535) or exif.get_ifd(_INTEROP_IFD).get(1) == "R03"
    except Exception:
        return False


def to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Converts an image of mode L, RGB or CMYK from its profile to sRGB, or leaves it as it is and says why in `notes`."""
    transform, note = _transform(bytes(profile), image.mode)
    if note:
        notes.append(note)
    return image if transform is None else ImageCms.applyTransform(image, transform)


@functools.lru_cache(maxsize=64)  # the images of a set share a few profiles
def _transform(profile, mode):
    """Returns (transform to sRGB or None, note or None); None leaves the pixels alone."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != SPACES[mode]:
            return None, "ICC profile of another colour space, ignored"
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", flags=_OPTIONS.get(mode, 0))
        probe = _probe(mode)
        if mode != "CMYK":
            moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe.convert("RGB"))
            if np.abs(moved).max() <= _SAME:
                return None, None
    except Exception:
        return None, "damaged ICC profile, ignored"
    return transform, "converted to sRGB by their ICC profile or gAMA"


def _probe(mode):
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 18, 3))


@functools.cache
def _srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def _lab():
    return ImageCms.buildTransform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), _srgb(), "LAB", "RGB")


def from_lab(image: Image.Image) -> Image.Image:
    """Converts an image of mode LAB to sRGB."""
    return ImageCms.applyTransform(image, _lab())
