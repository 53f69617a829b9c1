"""Encoded images (files, records) as a data set: `Images` reads, decodes, crops and resizes them on access."""

import io
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from advdiff_jax.errors import InvalidArgument, UserError

log = logging.getLogger(__name__)

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated image raises an error; Pillow would fill it with grey
MODES = {1: "L", 3: "RGB"}
ON_BAD = ("fail", "skip")


class Records(Protocol):
    """Random access to encoded images; it is pickled to send it to worker processes."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Returns the encoded images at `indices`."""

    def name(self, index: int) -> str:
        """Returns the name of the image at `index` for messages."""


def decode(data: bytes) -> Image.Image:
    """Decodes all pixels of an image.

    Raises:
        InvalidArgument: `data` is empty, of an unknown format, damaged or truncated; the message says which.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise InvalidArgument("not an image of a known format" if data else "an empty file") from error
    # Pillow raises different types for damage, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidArgument(f"damaged or truncated: {error}") from error
    return image


def fit(image: Image.Image, size: int, channels: int, crop: int = 0) -> np.ndarray:
    """Converts an image to grey or RGB, crops a centred square and resizes it to [size, size, channels] uint8.

    Resizes as Improved-DDPM does (Nichol & Dhariwal 2021, `center_crop_arr`): a box filter halves the image while it is at
    least twice too large, then bicubic. Transparent pixels are laid on white, palettes resolved, and 16-bit grey scaled to
    8 bits.

    Args:
        image: an image of any size and mode.
        size: side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: side in pixels of the centred square to keep; 0, or a longer side than the image's, keeps the shorter side.
    """
    image = _convert(image, MODES[channels])
    side = min(crop or min(image.size), *image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    while image.width >= 2 * size:
        image = image.resize((image.width // 2, image.width // 2), Image.Resampling.BOX)
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels)


def _convert(image, mode):
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


class Images:
    """Data set [N, size, size, channels] of uint8 images (see `pixels`), read and decoded on access.

    Args:
        records: the encoded images.
        size: side in pixels after crop and resize.
        channels: 1 (grey) or 3 (RGB).
        crop: side in pixels of the centred square to keep, see `fit`.
        on_bad: "fail" raises an error for an image that does not decode; "skip" uses the next good image instead, and
            each process warns once per bad image.

    Raises:
        InvalidArgument: a value is out of range, or `records` is empty.
    """

    def __init__(self, records: Records, size: int, channels: int, crop: int = 0, on_bad: str = "fail"):
        if channels not in MODES:
            raise InvalidArgument(f"channels={channels} is not supported: set 1 (grey) or 3 (RGB)")
        if size < 1:
            raise InvalidArgument(f"size={size} is out of range: set a value in [1, inf)")
        if crop < 0:
            raise InvalidArgument(f"crop={crop} is out of range: set a value in [0, inf)")
        if on_bad not in ON_BAD:
            raise InvalidArgument(f"on_bad_image={on_bad!r} is unknown: set one of {', '.join(ON_BAD)}")
        if not len(records):
            raise InvalidArgument("the data set holds no images: set another path or split")
        self._records, self._crop, self._on_bad = records, crop, on_bad
        self._bad: set[int] = set()
        self.shape, self.dtype = (len(records), size, size, channels), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Returns images [n, size, size, channels] at integer indices [n]; raises UserError for a bad, unskipped image."""
        encoded = self._records.read([int(index) for index in indices])
        out = np.empty((len(encoded), *self.shape[1:]), np.uint8)
        for row, (index, data) in enumerate(zip(indices, encoded, strict=True)):
            out[row] = self._image(int(index), data)
        return out

    def _image(self, index, data):
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                return fit(decode(data if not offset else self._records.read([at])[0]), *self.shape[2:], self._crop)
            except ValueError as error:
                self._report_bad(at, error)
        raise UserError(
            f"all {len(self):,} images are unusable, the last is {self._records.name(at)}: set another path or split"
        )

    def _report_bad(self, index, error):
        name = self._records.name(index)
        if self._on_bad == "fail":
            raise UserError(
                f"image {name} is unusable ({error}): repair or remove it, or set --config.data.on_bad_image=skip"
            ) from error
        if index not in self._bad:
            self._bad.add(index)
            log.warning("image %s is skipped (%s); %d so far in this process", name, error, len(self._bad))
