"""A careful reader of images, apart from the library's: Pillow's own steps, one after another, for sound files."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def read(data: bytes) -> np.ndarray | None:
    """Returns [H, W, 3] as a viewer shows it on white; None for values without a fixed range, and for a PNG's own gamma."""
    image = Image.open(io.BytesIO(data))
    try:
        if getattr(image, "default_image", False):
            image.seek(1)
        image.load()
    except (EOFError, SyntaxError):  # no sound animation
        image = Image.open(io.BytesIO(data))
        image.load()
    profile = image.info.get("icc_profile")
    if image.format == "PNG" and not profile and "srgb" not in image.info and _has_own_gamma(image.info):
        return None
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    if image is None or image.mode == "LAB":
        return None
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        is_grey = image.mode in ("LA", "La", "L", "1")
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha, image = image.getchannel("A"), image.convert("L" if is_grey else "RGB")
    image = (_in_srgb(image, profile) if profile else image).convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image)


def _has_own_gamma(info):
    x = np.array(info.get("chromaticity", SRGB)) - SRGB
    return abs(info.get("gamma", 0.45455) - 0.45455) > 0.02 or np.abs(x).max() > 0.009


def _eight_bits(image):
    x, key = np.asarray(image), image.info.get("transparency")
    limit = 1.0 if image.mode == "F" else 65535
    if not np.isfinite(x).all() or x.min() < 0 or x.max() > limit:
        return None
    grey = np.rint(x * 255.0) if image.mode == "F" else x // 257
    return Image.fromarray(np.where(x == key, 255, grey).astype(np.uint8))


def _in_srgb(image, profile):
    image = image if image.mode in SPACES else image.convert("L" if image.mode == "1" else "RGB")
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != SPACES[image.mode]:
            return image
        exact = ImageCms.Flags.NOOPTIMIZE if image.mode == "L" else 0
        found = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB", flags=exact)
    except (OSError, ImageCms.PyCMSError):
        return image  # a damaged profile
    if image.mode == "CMYK":
        return found
    moved = np.asarray(found).astype(int) - np.asarray(image.convert("RGB"))
    return image if np.abs(moved).max() <= 1 else found  # sRGB itself, but for rounding
