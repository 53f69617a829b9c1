"""Encoded images (files, records) as a data set: `Images` reads, decodes, crops and resizes them on access."""

import itertools
import logging
import pathlib
from collections.abc import Sequence, Set
from typing import Protocol

import numpy as np
from PIL import Image

from advdiff_jax.data import decoding, listing
from advdiff_jax.data.pixels import Examples, height_width
from advdiff_jax.errors import InvalidArgument, UserError

log = logging.getLogger(__name__)

MODES = {1: "L", 3: "RGB"}
ON_BAD = ("fail", "skip")


class Records(Protocol):
    """Random access to encoded images; it is pickled to send it to worker processes."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Returns the encoded images at `indices`; raises OSError if one cannot be read."""

    def name(self, index: int) -> str:
        """Returns the name of the image at `index` for messages."""


def fit(image: Image.Image, size: int | Sequence[int], channels: int, crop: int = 0, pad: bool = False) -> np.ndarray:
    """Crops an image at its centre to an aspect ratio, and resizes it to [height, width, channels] uint8.

    Resizes as Improved-DDPM does (Nichol & Dhariwal 2021, `center_crop_arr`): a box filter halves the image while it is at
    least twice too large, then bicubic.

    Args:
        image: an image of any size, of mode "L" or "RGB".
        size: side of the result in pixels, or (height, width).
        channels: 1 (grey) or 3 (RGB).
        crop: pixels of the shorter side of the rectangle to keep; 0, or more than the image has, keeps all that fits.
        pad: centres an image that fits into the size on black, instead of enlarging it.
    """
    height, width = height_width(size)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if pad and image.width <= width and image.height <= height:
        framed = Image.new(image.mode, (width, height))
        framed.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return np.asarray(framed).reshape(height, width, channels)
    factor = min(image.width / width, image.height / height, *([crop / min(height, width)] if crop else []))
    kept_width = min(image.width, max(1, round(width * factor)))
    kept_height = min(image.height, max(1, round(height * factor)))
    if image.size != (kept_width, kept_height):
        left, top = (image.width - kept_width) // 2, (image.height - kept_height) // 2
        image = image.crop((left, top, left + kept_width, top + kept_height))
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def check_arguments(size: int | Sequence[int], channels: int, crop: int, on_bad: str) -> tuple[int, int]:
    """Returns (height, width); raises InvalidArgument for an argument of `Images` out of range."""
    if channels not in MODES:
        raise InvalidArgument(f"channels={channels} is not supported: set 1 (grey) or 3 (RGB)")
    if crop < 0:
        raise InvalidArgument(f"crop={crop} is out of range: set a value in [0, inf)")
    if on_bad not in ON_BAD:
        raise InvalidArgument(f"on_bad_image={on_bad!r} is unknown: set one of {', '.join(ON_BAD)}")
    return height_width(size)


class Images:
    """Data set [N, height, width, channels] of uint8 images (see `pixels`), read and decoded on access.

    Args:
        records: the encoded images.
        size: side in pixels after crop and resize, or (height, width).
        channels: 1 (grey) or 3 (RGB).
        crop: shorter side in pixels of the centred part to keep, see `fit`.
        on_bad: "fail" raises an error for an image that cannot be read or decoded; "skip" uses the next good image instead,
            and each process warns once per bad image.
        value_range: values that become black and white in files deeper than 8 bits, see `decoding.decode`.
        sizes: (width, height) of the images as they are stored; empty: not looked at.
        inventory: rows of the table of files that are used, left out and refused, heads first; () for other sets.
        pad: whether a smaller image gets a black border, see `fit`.
        masks: which pixels of each image are known, [N, height, width, 1] bool; None: all.

    Raises:
        InvalidArgument: a value is out of range, or `records` is empty.
    """

    def __init__(
        self,
        records: Records,
        size: int | Sequence[int],
        channels: int,
        crop: int = 0,
        on_bad: str = "fail",
        value_range: tuple[float, float] | None = None,
        inventory: Sequence[Sequence[str]] = (),
        pad: bool = False,
        sizes: Set[tuple[int, int]] = frozenset(),
        masks: Examples | None = None,
    ):
        height, width = check_arguments(size, channels, crop, on_bad)
        if not len(records):
            raise InvalidArgument("the data set holds no images: set another path or split")
        self._records, self._crop, self._pad, self._on_bad, self._value_range = records, crop, pad, on_bad, value_range
        self._bad: set[int] = set()
        self.masks = masks
        self.inventory, self.sizes = tuple(inventory), frozenset(sizes)
        self.shape, self.dtype = (len(records), height, width, channels), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Returns images [n, H, W, C] at integer indices [n]; raises UserError for a bad, unskipped image."""
        wanted = [int(index) for index in indices]
        try:
            encoded = self._records.read(wanted)
        except OSError:  # of one of them; `_image` finds out which
            encoded = [None] * len(wanted)
        out = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for row, (index, data) in enumerate(zip(wanted, encoded, strict=True)):
            out[row] = self._image(index, data)
        return out

    def names(self) -> list[str]:
        """Returns the names of the images, without folder and ending; a name that comes again gets a number."""
        found: dict[str, None] = {}  # an ordered set
        for index in range(len(self)):
            stem = pathlib.PurePath(self._records.name(index)).stem
            others = (f"{stem}-{number}" for number in itertools.count(2))
            found[next(name for name in itertools.chain([stem], others) if name not in found)] = None
        return list(found)

    def paths(self) -> list[str]:
        """Returns the paths of the images under their folder or archive, without ending; without any, the names."""
        path = getattr(self._records, "path", None)
        if path is None:
            return self.names()
        return [listing.without_ending(path(index)) for index in range(len(self))]

    def fingerprint(self) -> dict:
        """Returns `fingerprint.of` of the records, and a hash of that of masks which have files of their own.

        Records that cannot say what they hold are identified by their number.
        """
        own = getattr(self._records, "fingerprint", None)
        found = own() if own else {"kind": type(self._records).__name__, "count": len(self)}
        masks = getattr(self.masks, "records", self._records)
        return found if masks is self._records or not own else found | {"masks": masks.fingerprint()["sha256"]}

    def _image(self, index, data):
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                if data is None or offset:
                    data = self._records.read([at])[0]
                image = decoding.decode(data, MODES[self.shape[3]], self._value_range).image
                return fit(image, self.shape[1:3], self.shape[3], self._crop, self._pad)
            except (OSError, ValueError) as error:
                self._report_bad(at, error)
        raise UserError(
            f"all {len(self):,} images are unusable, the last is {self._records.name(at)}: set another path or split"
        )

    def _report_bad(self, index, error):
        name, reason = self._records.name(index), listing.os_reason(error)
        if self._on_bad == "fail":
            raise UserError(
                f"image {name} is unusable ({reason}): repair or remove it, or set --config.data.on_bad_image=skip"
            ) from error
        if index not in self._bad:
            self._bad.add(index)
            log.warning("image %s is skipped (%s); %d so far in this process", name, reason, len(self._bad))
