"""Masks of a user's own images: data sets [N, H, W, 1] of bool (see `pixels`), True where a pixel is known."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from advdiff_jax.data import decoding, listing
from advdiff_jax.data.file_kinds import shown
from advdiff_jax.data.listing import Entry
from advdiff_jax.data.records import Records, fit
from advdiff_jax.errors import UserError


def of_alpha(data: bytes) -> Image.Image:
    """Decodes an image file into its mask of mode "L": white where it is opaque, black where it is transparent at all."""
    return decoding.decode_alpha(data).point(lambda value: 255 * (value == 255))


def of_mask(data: bytes) -> Image.Image:
    """Decodes a mask file into a mask of mode "L": white from 128 of 255 on, black below."""
    return decoding.decode(data, "L").image.point(lambda value: 255 * (value >= 128))


class RecordMasks:
    """Masks of encoded images, read on access, cropped and resized as the images are (`records.fit`).

    A pixel of a resized image is a mean over pixels of the file. It is known only if it and its neighbours are means of known
    pixels alone, because the bicubic filter reaches into them: one pixel around in an image that was made smaller, as many as
    the factor in one that was enlarged.

    Args:
        records: the encoded images or mask files.
        decode: a file -> its mask, of mode "L", see `of_alpha` and `of_mask`.
        shape: [N, H, W, C] of the images.
        crop: as for the images.
        pad: as for the images; the black border is not known.
    """

    def __init__(self, records: Records, decode: Callable[[bytes], Image.Image], shape: Sequence[int], crop: int, pad: bool):
        self.records, self._decode, self._crop, self._pad = records, decode, crop, pad
        self.shape, self.dtype = (*shape[:3], 1), np.dtype(bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Returns masks [n, H, W, 1] at integer indices [n]; raises UserError for a file that cannot be read."""
        return np.stack([self._mask(int(index)) for index in indices])

    def _mask(self, index):
        try:
            whole = self._decode(self.records.read([index])[0])
        except (OSError, ValueError) as error:
            said = f"{self.records.name(index)} has no readable mask ({listing.os_reason(error)})"
            raise UserError(f"{said}: repair or remove it, and start again") from error
        height, width = self.shape[1:3]
        mask = fit(whole, (height, width), 1, self._crop, self._pad) == 255
        is_framed = self._pad and whole.width <= width and whole.height <= height
        is_resized = (whole.width > width and whole.height > height) or whole.width < width or whole.height < height
        if is_framed or not is_resized:
            return mask
        shorter = min(whole.width, whole.height, self._crop or whole.width)
        reach = math.ceil(max(1.0, height / whole.height, width / whole.width, min(height, width) / shorter))
        return ndimage.minimum_filter(mask, (2 * reach + 1, 2 * reach + 1, 1))


class ArrayMasks:
    """Masks of an array of images, read on access.

    Args:
        array: the array as stored, [N, ...].
        known: images as stored [n, ...] -> masks [n, H, W, 1].
        shape: [N, H, W, C] of the images.
    """

    def __init__(self, array: Any, known: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]):
        self._array, self._known = array, known
        self.shape, self.dtype = (*shape[:3], 1), np.dtype(bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._known(np.asarray(self._array[indices]))


def pair(
    path: str, images: Sequence[Entry], sizes: Mapping[str, Any], masks: Sequence[Entry], mask_sizes: Mapping[str, Any]
) -> list[Entry]:
    """Returns the mask of each image: the one of the same name, whatever its ending.

    Args:
        path: the folder of the masks, for messages.
        images: entries of the images.
        sizes: name -> finding with the size (width, height) of an image.
        masks: entries of the masks.
        mask_sizes: the same of the masks.

    Raises:
        UserError: an image has no mask or several, or a mask has another size than its image.
    """
    by_stem: dict[str, list[Entry]] = {}
    for entry in masks:
        by_stem.setdefault(_stem(entry), []).append(entry)
    where, paired = f"config.data.mask_path={path!r}", []
    missing = [entry for entry in images if _stem(entry) not in by_stem]
    if missing:
        raise UserError(
            f"{where} has no mask for {len(missing):,} of {len(images):,} images, such as {shown(missing[0].name)}: add one of "
            "the same name for each image"
        )
    for entry in images:
        mask, *more = by_stem[_stem(entry)]
        if more:
            raise UserError(f"{where} has several masks for {shown(entry.name)}: {shown(mask.name)}, {shown(more[0].name)}")
        found, wanted = tuple(mask_sizes[mask.name]["size"]), tuple(sizes[entry.name]["size"])
        if found != wanted:
            raise UserError(
                f"{where}: the mask {shown(mask.name)} has {found[0]}x{found[1]} pixels and does not fit its image of "
                f"{wanted[0]}x{wanted[1]}: give it the same size"
            )
        paired.append(mask)
    return paired


def _stem(entry):
    return listing.without_ending(listing.own_path(entry))
