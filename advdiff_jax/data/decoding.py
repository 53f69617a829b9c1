"""One encoded image -> the 8-bit pixels that a careful viewer shows, or the reason why there are none.

Upright by its EXIF orientation, in sRGB by its ICC profile or a PNG's gAMA and cHRM, laid on white where it is transparent;
of an animation the first frame. Files deeper than 8 bits are scaled from a range of values to 0..255.
"""

import io
import re
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from advdiff_jax.data import colour, jpeg
from advdiff_jax.data.file_kinds import FORMATS, HEAD, READABLE, REMEDIES, kind_of
from advdiff_jax.errors import InvalidArgument

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated image raises an error; Pillow would fill it with grey
# Text of 2 MB is no damage (editors store their history so); these are Pillow's own bounds against decompression bombs, raised.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 2**27)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, 2**28)
# Between Pillow's warning and its error, at twice as many pixels, an image is large and sound.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What Pillow says of odd metadata names no file; the pixels decide.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

SIXTEEN_BITS = (0.0, 65535.0)
LONGEST = 100_000  # pixels of a side; Pillow takes minutes for longer rows, which damaged headers have
_TURNS = {  # EXIF orientation -> what puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_SUBFILE_TYPE = 254  # TIFF: bit 0 marks a smaller version of another page
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO, _YCBCR = 258, 262, 0, 6  # TIFF


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: 8 bits, opaque, of mode "L" or "RGB".
        mode: Pillow's mode of the file.
        notes: what was done or ignored, in words that can be counted over a set.
        values: least and largest value in a file deeper than 8 bits, else None.
    """

    image: Image.Image
    mode: str
    notes: tuple[str, ...] = ()
    values: tuple[float, float] | None = None


def decode(data: bytes, mode: str = "RGB", value_range: tuple[float, float] | None = None, thorough: bool = False) -> Decoded:
    """Decodes an image.

    Args:
        data: the file.
        mode: "L" (grey) or "RGB".
        value_range: values that become black and white in a file deeper than 8 bits, others are clipped; None: 0 and 65535
            for integers, 0 and 1 for floats, and other values raise an error.
        thorough: also looks for holes in JPEG files, and decodes progressive ones twice, to find those that end early.

    Raises:
        InvalidArgument: `data` is no image of a format that is read, damaged, truncated or too large, or holds values out of
            range; the message says which.
    """
    kind = kind_of(data[:HEAD])
    if kind not in FORMATS:
        raise InvalidArgument(not_an_image(kind))
    # Decoders raise what they like (RuntimeError, NotImplementedError, struct.error, MemoryError, ...): whatever it is, the
    # image is bad. KeyboardInterrupt is no Exception.
    try:
        return _decode(data, kind, mode, value_range, thorough)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(_reason(error, kind)) from error


def decode_alpha(data: bytes) -> Image.Image:
    """Decodes the transparency of an image: of mode "L", upright, 255 where it is opaque, and everywhere in one without.

    Raises:
        InvalidArgument: as `decode`.
    """
    kind = kind_of(data[:HEAD])
    if kind not in FORMATS:
        raise InvalidArgument(not_an_image(kind))
    try:
        notes: list[str] = []
        opened = _open(data, kind, notes)
        transparent, turn = _transparent_value(data, opened, kind), _TURNS.get(_orientation(opened, notes))
        image = _with_transparency(opened, transparent)
        alpha = image.convert("RGBA").getchannel("A") if _is_transparent(image) else Image.new("L", image.size, 255)
        return alpha if turn is None else alpha.transpose(turn)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(_reason(error, kind)) from error


def not_an_image(kind: str) -> str:
    """Says why a file of this kind is not decoded."""
    known = {"empty": "an empty file", "text": "text, not an image", "unknown": "not an image of a known format"}
    remedy = f"; {REMEDIES[kind]}" if kind in REMEDIES else ""
    return known.get(kind, f"{kind}, not {READABLE}{remedy}")


def _decode(data, kind, mode, value_range, thorough):
    notes: list[str] = []
    opened = _open(data, kind, notes)
    if kind == "JPEG":
        jpeg.check_complete(data, opened, thorough)
    stored, image, values = opened.mode, opened, None
    if stored == "F" or stored.startswith("I"):
        image, values = _to_eight_bits(opened, value_range)
    turn = _TURNS.get(_orientation(opened, notes))
    image = _flatten(image, _transparent_value(data, opened, kind), mode, colour.profile_of(opened, kind, notes), notes)
    if turn is not None:
        image = image.transpose(turn)
        notes.append("turned upright by EXIF")
    if kind != "JPEG" and _has_frames(opened):
        notes.append("several frames, the first is used")
    return Decoded(image, stored, tuple(notes), values)


def _open(data, kind, notes):
    image = Image.open(io.BytesIO(data), formats=(kind,))
    if getattr(image, "default_image", False):  # an APNG whose still image is not part of the animation
        try:
            image.seek(1)
            image._prev_im = None  # an animation starts on an empty canvas; Pillow lays its first frame on the still image
            image.load()
        except Exception:  # as viewers do
            image = Image.open(io.BytesIO(data), formats=(kind,))
            notes.append("damaged animation, its still image is used")
    if image.format == "TIFF" and _is_reduced(image) and image.is_animated:
        for page in range(1, image.n_frames):
            image.seek(page)
            if not _is_reduced(image):
                break
        else:
            image.seek(0)
    if max(image.size) > LONGEST:
        raise InvalidArgument(f"too large: {image.width}x{image.height} pixels, limit {LONGEST:,} a side; shrink it first")
    if image.format == "TIFF" and image.info.get("compression") == "raw":
        _check_strips(data, image)
    image.load()
    if min(image.size) < 1:
        raise InvalidArgument(f"an image of {image.width}x{image.height} pixels")
    return image


def _check_strips(data, image):
    """Raises InvalidArgument if an uncompressed TIFF file is shorter than its pixels; Pillow leaves missing strips black."""
    bits = sum(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    is_subsampled = image.tag_v2.get(_PHOTOMETRIC) == _YCBCR
    needed = image.width * image.height * bits // (16 if is_subsampled else 8)
    if needed > len(data):
        raise InvalidArgument(
            f"truncated: {image.width}x{image.height} pixels need {needed:,} bytes, the file has {len(data):,}"
        )


def _is_reduced(image):
    return bool(int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & 1)


def _has_frames(image):
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # damage after the first frame, which is sound
        return True


def _orientation(image, notes):
    """Returns the EXIF orientation, 1 to 8; only after `load`, where PNG files may hold it and TIFF files are turned."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are sound without their metadata
        notes.append("damaged EXIF data, ignored")
        return 1


def _to_eight_bits(image, value_range):
    """Returns (image of mode "L", or "LA" where one value is transparent, (least, largest value))."""
    array = np.asarray(image)
    if image.format == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        array = 65535 - array  # X-rays; Pillow inverts 8 bits, but not 16
    least, largest = float(array.min()), float(array.max())
    if not np.isfinite(array).all():
        raise InvalidArgument("its values are not all finite")
    if value_range is None:
        value_range = (0.0, 1.0) if image.mode == "F" else SIXTEEN_BITS
        if least < value_range[0] or largest > value_range[1]:
            raise InvalidArgument(
                f"its values lie in {least:g} to {largest:g}, not in {value_range[0]:g} to {value_range[1]:g}: set "
                "--config.data.value_range=(BLACK,WHITE)"
            )
    out = Image.fromarray(scale(array, value_range))
    key = image.info.get("transparency")
    if isinstance(key, int):
        out = Image.merge("LA", [out, Image.fromarray(np.where(array == key, 0, 255).astype(np.uint8))])
    return out, (least, largest)


def scale(x: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scales values from (black, white) to uint8 0..255: clipped and rounded, 16 bits rounded down."""
    if x.dtype.kind in "iu" and tuple(value_range) == SIXTEEN_BITS:
        return (np.clip(x, 0, 65535) // 257).astype(np.uint8)
    black, white = value_range
    return np.rint(np.clip((x - np.float64(black)) * (255.0 / (white - black)), 0.0, 255.0)).astype(np.uint8)


def _transparent_value(data, image, kind):
    """Returns what `image.info["transparency"]` should be for the decoded pixels, or None.

    A PNG gives its transparent colour at the depth of the file, and Pillow decodes to 8 bits.
    """
    key = image.info.get("transparency")
    depth = data[24] if kind == "PNG" else 8  # of IHDR, which is the first chunk
    if isinstance(key, int) and image.mode == "L" and depth < 8:
        return key * 255 // (2**depth - 1)
    if isinstance(key, tuple) and depth == 16:
        return tuple(value >> 8 for value in key)  # as Pillow reduces the pixels
    return key


def _with_transparency(image, transparent):
    """Returns the image with this transparent value, or with none; of "La" as "LA"."""
    if transparent is not None and image.mode in ("1", "L", "P", "RGB"):
        image = image.copy()
        image.info["transparency"] = transparent
    else:
        image.info.pop("transparency", None)
    return image.convert("LA") if image.mode == "La" else image


def _is_transparent(image):
    return image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info


def _flatten(image, transparent, mode, profile, notes):
    """Converts an image of any 8-bit mode to an opaque one of `mode` in sRGB."""
    image = _with_transparency(image, transparent)
    alpha = None
    if _is_transparent(image):
        is_grey = image.mode in ("1", "L", "LA")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] < 255:
            notes.append("transparent, laid on white")
        if profile:
            image = colour.to_srgb(image.getchannel(0) if is_grey else image.convert("RGB"), profile, notes).convert("RGB")
            image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "LAB":
        image = colour.from_lab(image)
    elif profile:
        base = image if image.mode in colour.SPACES else image.convert("L" if image.mode == "1" else "RGB")
        image = colour.to_srgb(base, profile, notes)
    return image if image.mode == mode else image.convert(mode)


def _reason(error, kind):
    text = " ".join(str(error).split())[:200]
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\((\d+) pixels\)", text)
        size = f"{int(pixels[1]) / 1e6:.0f} MP, " if pixels else ""
        return f"too large: {size}limit {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} MP; shrink it first"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if "MAX_TEXT_CHUNK" in text or "text chunks" in text:
        return f"too large: more than {PngImagePlugin.MAX_TEXT_CHUNK / 1e6:.0f} MB of text; save it without its metadata"
    if isinstance(error, UnidentifiedImageError):
        return f"damaged or truncated: it begins as {kind}, but cannot be read"
    return f"damaged or truncated: {text or type(error).__name__}"
