"""Encoded pictures (files, records) as a data set: `Pictures` reads, decodes, crops and resizes what it is asked for."""

import io
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is an error, never grey
MODES = {1: "L", 3: "RGB"}
ON_BAD = ("fail", "skip")


class Records(Protocol):
    """Encoded pictures with random access; it is pickled into worker processes."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """The encoded pictures at `indices`."""

    def name(self, index: int) -> str:
        """What to call a picture in a message."""


def decode(data: bytes) -> Image.Image:
    """Decodes a picture wholly.

    Raises:
        ValueError: it is no picture, or a damaged or truncated one; the message says which.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError("not a picture of a known format" if data else "an empty file") from error
    # Pillow reports damage by several types, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"damaged or truncated: {error}") from error
    return image


def fit(image: Image.Image, size: int, channels: int, crop: int = 0) -> np.ndarray:
    """Any picture -> [size, size, channels] uint8: to grey or RGB, centred square crop, resized.

    As Improved-DDPM prepares pictures (Nichol & Dhariwal 2021, `center_crop_arr`): halved by a box filter while at least
    twice too large, then bicubic. What is transparent is laid on white, palettes are resolved, 16-bit grey is scaled.

    Args:
        image: of any size and mode.
        size: side of the result in pixels.
        channels: 1 or 3.
        crop: side in pixels of the centred square that is kept; 0, or more than there is: the shorter side.
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
    if image.mode.startswith("I"):  # 16 bits: a plain convert would clip at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


class Pictures:
    """Pictures read when they are asked for; a data set [N, size, size, channels] of uint8 (see `wire`).

    Args:
        records: the encoded pictures.
        size: side in pixels after crop and resize.
        channels: 1 (grey) or 3 (RGB).
        crop: see `fit`.
        on_bad: what to do about a picture that cannot be decoded: "fail", or "skip" to use the next one that can, with
            a warning that names it, once for each process.

    Raises:
        ValueError: a value out of range, or there are no records.
    """

    def __init__(self, records: Records, size: int, channels: int, crop: int = 0, on_bad: str = "fail"):
        if channels not in MODES or size < 1 or crop < 0 or on_bad not in ON_BAD:
            raise ValueError(
                f"need channels 1 or 3, size >= 1, crop >= 0 and on_bad_picture in {ON_BAD}, got "
                f"{channels}, {size}, {crop} and {on_bad!r}"
            )
        if not len(records):
            raise ValueError("the data set holds no pictures")
        self._records, self._crop, self._on_bad = records, crop, on_bad
        self._bad: set[int] = set()
        self.shape, self.dtype = (len(records), size, size, channels), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Integer indices [n] -> [n, size, size, channels]; raises UserError for a picture that is bad and not skipped."""
        encoded = self._records.read([int(index) for index in indices])
        out = np.empty((len(encoded), *self.shape[1:]), np.uint8)
        for row, (index, data) in enumerate(zip(indices, encoded, strict=True)):
            out[row] = self._picture(int(index), data)
        return out

    def _picture(self, index, data):
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                return fit(decode(data if not offset else self._records.read([at])[0]), *self.shape[2:], self._crop)
            except ValueError as error:
                self._refuse(at, error)
        raise UserError(f"none of the {len(self):,} pictures can be read; the last is {self._records.name(at)}")

    def _refuse(self, index, error):
        name = self._records.name(index)
        if self._on_bad == "fail":
            raise UserError(
                f"picture {name} cannot be used ({error}): repair or remove it, or pass over such pictures with "
                "--config.data.on_bad_picture=skip"
            ) from error
        if index not in self._bad:
            self._bad.add(index)
            log.warning("picture %s is skipped (%s); %d so far in this process", name, error, len(self._bad))
