"""A careful reader of images, apart from the library's: Pillow's own steps, one after another, for sound files."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def read(data: bytes) -> np.ndarray | None:
    """Returns [H, W, 3] as a viewer shows it on white; None for values that have no fixed range."""
    image = Image.open(io.BytesIO(data))
    try:
        if getattr(image, "default_image", False):
            image.seek(1)
        image.load()
    except (EOFError, SyntaxError):  # no sound animation
        image = Image.open(io.BytesIO(data))
        image.load()
    profile = image.info.get("icc_profile")
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
        found = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return image  # a damaged profile
    if image.mode == "CMYK":
        return found
    moved = np.asarray(found).astype(int) - np.asarray(image.convert("RGB"))
    return image if np.abs(moved).max() <= 1 else found  # sRGB itself, but for rounding
