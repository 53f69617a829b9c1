"""Arrays in .npy and .npz files: images in the layouts and units that people keep, and points."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from advdiff_jax.data import decoding
from advdiff_jax.data.array_files import UNPICKLE, open_arrays
from advdiff_jax.data.masks import ArrayMasks
from advdiff_jax.data.pixels import Examples, evenly_spaced_indices, height_width
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

_PROBED = 2**28  # bytes of a large array whose values are looked at


class Reading(NamedTuple):
    """How an array is read as images.

    Attributes:
        layout: name in `LAYOUTS`.
        value_range: values that become black and white; None: uint8 as it is.
        clips: whether values beyond become black and white too, instead of an error.
    """

    layout: str
    value_range: tuple[float, float] | None
    clips: bool = False


class Layout(NamedTuple):
    """A way to keep images.

    Attributes:
        shape: (height, width, channels) -> the shape of an image as stored.
        to_nhwc: (images as stored, height, width) -> [n, H, W, C], or [n, H, W, 4] with transparency.
        channels: numbers of channels that it can give.
    """

    shape: Callable[[int, int, int], tuple[int, ...]]
    to_nhwc: Callable[[np.ndarray, int, int], np.ndarray]
    channels: tuple[int, ...] = (1, 3)


LAYOUTS = {
    "[N, H, W, C]": Layout(lambda h, w, c: (h, w, c), lambda x, h, w: x),
    "[N, C, H, W]": Layout(lambda h, w, c: (c, h, w), lambda x, h, w: x.transpose(0, 2, 3, 1)),
    "[N, H, W], grey without a channel axis": Layout(lambda h, w, c: (h, w), lambda x, h, w: x[..., None], (1,)),
    "[N, H W], grey": Layout(lambda h, w, c: (h * w,), lambda x, h, w: x.reshape(-1, h, w, 1), (1,)),
    "[N, H, W, 4], RGBA laid on white": Layout(lambda h, w, c: (h, w, 4), lambda x, h, w: x, (3,)),
    "[N, 4, H, W], RGBA laid on white": Layout(lambda h, w, c: (4, h, w), lambda x, h, w: x.transpose(0, 2, 3, 1), (3,)),
}


class ArrayImages:
    """Images in an array as a data set [N, H, W, C] of uint8 (see `pixels`), converted on access.

    Args:
        array: the array as stored.
        shape: (height, width, channels) of the images.
        reading: how it is read.
        mask: "none", or what marks a pixel as unknown: "nan" (NaN in any channel) or "alpha" (RGBA that is not opaque).
    """

    def __init__(self, array: Examples, shape: tuple[int, int, int], reading: Reading, mask: str = "none"):
        self._array, self._reading = array, reading
        self.masks = ArrayMasks(array, self._known, (len(array), *shape)) if mask != "none" else None
        self.shape, self.dtype = (len(array), *shape), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        channels = self.shape[3]
        x = self._nhwc(np.asarray(self._array[indices]))
        if self.masks is not None and x.dtype.kind == "f":
            x = np.where(np.isnan(x), x.dtype.type(np.mean(self._reading.value_range)), x)  # mid-grey
        if (value_range := self._reading.value_range) is not None:
            if not self._reading.clips and (x.min() < value_range[0] or x.max() > value_range[1]):
                raise UserError(
                    f"an array of images has values from {x.min():g} to {x.max():g}, not in {value_range[0]:g} to "
                    f"{value_range[1]:g} as its first look showed: set --config.data.value_range"
                )
            x = decoding.scale(x, value_range)
        if x.shape[3] == channels:
            return np.ascontiguousarray(x)
        colour, alpha = x[..., :3].astype(np.uint32), x[..., 3:].astype(np.uint32)
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)

    def _nhwc(self, stored):
        return LAYOUTS[self._reading.layout].to_nhwc(stored, *self.shape[1:3])

    def _known(self, stored):
        x = self._nhwc(stored)
        if x.shape[3] == 4 != self.shape[3]:
            return x[..., 3:] == (255 if self._reading.value_range is None else self._reading.value_range[1])
        return ~np.isnan(x).any(axis=-1, keepdims=True)


def image_array(
    path: str,
    size: int | Sequence[int],
    channels: int,
    array_key: str = "",
    value_range: tuple[float, float] | None = None,
    mask: str = "none",
) -> Examples:
    """Opens images in an .npy or .npz file; maps an .npy file, and reads one array of an .npz file.

    Arrays with one reading are read so, and the log says how: uint8, other integers from 0 to 255, 16 bits, booleans, floats in
    [0, 1] or [-1, 1]; channels last, first, or none for grey; RGBA.

    Args:
        path: the file.
        size: side in pixels that the images must have, or (height, width).
        channels: number of channels that the images must have.
        array_key: name of the array in an .npz file; "": the one that fits.
        value_range: values that become black and white; None: found from the dtype and the values.
        mask: "none", "nan" or "alpha", see `ArrayImages`.

    Raises:
        UserError: the file is missing or unreadable, or holds no such array, or several, or one with several readings, or one
            that cannot have such a mask.
    """
    shape = (*height_width(size), channels)
    stored, load = open_arrays(path, array_key)
    fitting = [(array, layout) for array in stored if (layout := _layout(array, shape))]
    where = f"config.data.path={path!r}"
    if not fitting:
        raise UserError(_no_fit(where, stored, shape))
    if len(fitting) > 1:
        names = " or ".join(array.name for array, _ in fitting)
        raise UserError(
            f"{where} holds several arrays that fit ({', '.join(str(array) for array, _ in fitting)}): set "
            f"--config.data.array_key={names}"
        )
    (chosen, layout), array = fitting[0], load(fitting[0][0].name)
    if mask == "nan" and array.dtype.kind != "f":
        raise UserError(f"config.data.mask='nan': {where}: {chosen} holds no floats, and so no NaN: set alpha or none")
    if mask == "alpha" and "RGBA" not in layout:
        raise UserError(f"config.data.mask='alpha': {where}: {chosen} has no fourth channel: set nan or none")
    values = _range_of(f"{where}: {chosen}", array, value_range, skip_nan=mask == "nan")
    reading = Reading(layout, values, clips=value_range is not None)
    log.info("%s: %s", where, _said(chosen, reading))
    if reading[:2] == ("[N, H, W, C]", None):
        return array
    return ArrayImages(array, shape, reading, mask)


def point_array(path: str, array_key: str = "") -> np.ndarray:
    """Reads points [N, D] from an .npy or .npz file, as float32 in the units of the file.

    Args:
        path: the file.
        array_key: name of the array in an .npz file; "": the only one of two axes.

    Raises:
        UserError: the file is missing or unreadable, or holds no such array, several, or values that are not finite.
    """
    stored, load = open_arrays(path, array_key)
    fitting = [array for array in stored if len(array.shape) == 2 and array.dtype.kind in "fiu" and min(array.shape)]
    where, found = f"config.data.path={path!r}", ", ".join(map(str, stored))
    if not fitting:
        raise UserError(f"{where} holds no points [N, D] of numbers (found: {found or 'no array'}): set another file")
    if len(fitting) > 1:
        raise UserError(
            f"{where} holds several arrays of points ({found}): set --config.data.array_key="
            f"{' or '.join(array.name for array in fitting)}"
        )
    array = load(fitting[0].name)
    points = np.asarray(array[np.arange(len(array))], np.float32)
    if not np.isfinite(points).all():
        raise UserError(f"{where}: {fitting[0]} holds values that are not finite as float32: remove or scale them")
    least, largest = points.min(), points.max()
    spread = (least, largest, points.std())
    log.info("%s: %s are points, with values from %g to %g and standard deviation %.3g", where, fitting[0], *spread)
    return points


def _layout(array, shape):
    if array.dtype.kind not in "buif" or not array.shape or not array.shape[0]:
        return None
    for name, layout in LAYOUTS.items():
        if shape[2] in layout.channels and array.shape[1:] == layout.shape(*shape):
            return name
    return None


def _no_fit(where, stored, shape):
    height, width, channels = shape
    found = ", ".join(map(str, stored)) or "no array"
    hints = list(filter(None, (_hint(array, shape) for array in stored)))
    return f"{where} holds no array of images [N, {height}, {width}, {channels}] (found: {found}): " + (
        hints[0] if hints else "set config.data.size and config.data.channels to those of its images, or set another file"
    )


def _hint(array, shape):
    """Returns what to do with an array that does not fit, or None."""
    height, width, channels = shape
    if array.dtype.hasobject:
        return f"{array.name} holds pickled objects: {UNPICKLE}"
    if array.dtype.kind not in "buif":
        return None
    rest = array.shape[1:]
    if channels == 3 and rest in ((height, width), (height * width,), (height, width, 1), (1, height, width)):
        return f"{array.name} is grey: set --config.data.channels=1"
    if channels == 3 and rest == (height * width * 3,):
        return (
            f"the rows of {array.name} are flat: np.save(FILE, x.reshape(-1, {height}, {width}, 3)) if their colours come "
            f"pixel by pixel, x.reshape(-1, 3, {height}, {width}) if they come plane by plane"
        )
    if array.shape in ((height, width, channels), (channels, height, width)):
        return f"{array.name} is a single image: add an axis and more images"
    if len(array.shape) == 4:
        return _other_size(array, rest)
    if len(array.shape) == 3:
        return f"set --config.data.size={_side(*rest)} --config.data.channels=1"
    if len(array.shape) == 2 and array.dtype.kind == "f":
        return "for points [N, D], set --config.data.source=points"
    return None


def _other_size(array, rest):
    first, last = rest[0] in (1, 3, 4), rest[2] in (1, 3, 4)
    if not first and not last:
        return None
    height, width, channels = rest if last else (*rest[1:], rest[0])
    return f"set --config.data.size={_side(height, width)} --config.data.channels={min(channels, 3)}"


def _side(height, width):
    return height if height == width else f"'({height}, {width})'"


def _range_of(where, array, value_range, skip_nan=False):
    """Returns the values that become black and white, or None for uint8 as it is."""
    if array.dtype.kind == "b":
        return (0.0, 1.0)
    step = max(1, int(np.prod(array.shape)) * array.dtype.itemsize // _PROBED)
    least, largest = np.inf, -np.inf
    is_whole = True
    indices = evenly_spaced_indices(len(array), max(1, len(array) // step))
    for part in np.array_split(indices, max(1, len(indices) // 256)):
        x = np.asarray(array[part])
        x = x[~np.isnan(x)] if skip_nan else x
        if not x.size:
            continue
        if not np.isfinite(x).all():
            raise UserError(
                f"{where} holds values that are not finite: remove them, or mark unknown pixels by NaN "
                "and set --config.data.mask=nan"
            )
        least, largest = min(least, float(x.min())), max(largest, float(x.max()))
        is_whole = is_whole and (x.dtype.kind != "f" or bool(np.all(x == np.rint(x))))
    if value_range is not None:
        return value_range
    found = _reading_of(array.dtype, least, largest, is_whole)
    if least == largest:
        raise UserError(f"{where} has one value only, {least:g}: set another file")
    if found is None:
        raise UserError(
            f"{where} has values from {least:g} to {largest:g}, which have several readings: set --config.data.value_range="
            f"(BLACK,WHITE), the values that become black and white, such as ({min(0.0, least):g},{largest:g})"
        )
    black, white = found
    if largest - least < (white - black) / 4:
        log.warning("%s has values from %g to %g only, of %g to %g", where, least, largest, black, white)
    return None if array.dtype == np.uint8 else found


def _reading_of(dtype, least, largest, is_whole):
    if dtype.kind == "f" and least >= -1.0 and largest <= 1.0:
        return (0.0, 1.0) if least >= 0.0 else (-1.0, 1.0)
    if is_whole and least >= 0.0 and 1.0 < largest <= 255.0:
        return (0.0, 255.0)
    if dtype.kind == "u" and dtype.itemsize == 2 and largest >= 2**14:
        return decoding.SIXTEEN_BITS
    return None


def _said(array, reading):
    values = "" if reading.value_range is None else "; {:g} becomes black, {:g} white, in 8 bits".format(*reading.value_range)
    return f"{array} is read as images {reading.layout}{values}"
