"""Image corruptions: functions `(rng, x, index) -> x` of one float image [H, W, C] in [-1, 1] (see `corruption`)."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from advdiff_jax.data.corruption import Corruption
from advdiff_jax.data.pixels import Examples, to_bytes, to_float
from advdiff_jax.errors import InvalidArgument

# (rng, shape (H, W, C) of an image) -> mask [H, W, 1] bool, True where the image is seen.
MaskDraw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InvalidArgument(f"{name}={value} is out of range: set a value in [0, 1]")


def salt_and_pepper(share: float) -> Corruption:
    """Sets a share of the pixels (all channels together) to black or white, with equal chance.

    Raises:
        InvalidArgument: `share` outside [0, 1].
    """
    _check_share("salt_and_pepper: share", share)

    def corrupt_one(rng, x, index=0):
        is_set = rng.uniform(size=(*x.shape[:2], 1)) < share
        return np.where(is_set, rng.choice(np.array([-1.0, 1.0], x.dtype), (*x.shape[:2], 1)), x)

    return corrupt_one


def missing_pixels_mask(share: float) -> MaskDraw:
    """Hides a share of the pixels (all channels together); raises InvalidArgument if `share` is outside [0, 1]."""
    _check_share("missing_pixels: share", share)
    return lambda rng, shape: rng.uniform(size=(*shape[:2], 1)) >= share


def missing_block_mask(side: float) -> MaskDraw:
    """Hides a square at a random place inside the image.

    Args:
        side: side of the square over the image's shorter side.

    Raises:
        InvalidArgument: `side` outside [0, 1].
    """
    _check_share("missing_block: side", side)

    def draw(rng, shape):
        length = round(side * min(shape[:2]))
        top, left = (rng.integers(extent - length + 1) for extent in shape[:2])
        mask = np.ones((*shape[:2], 1), bool)
        mask[top : top + length, left : left + length] = False
        return mask

    return draw


def missing_pixels(share: float) -> Corruption:
    """Sets the pixels that `missing_pixels_mask` hides to 0, mid-grey; takes its argument."""
    return _hide(missing_pixels_mask(share))


def missing_block(side: float) -> Corruption:
    """Sets the square that `missing_block_mask` hides to 0, mid-grey; takes its argument."""
    return _hide(missing_block_mask(side))


def foreign_patch(others: Examples, side: float) -> Corruption:
    """Fills the square that `missing_block_mask` hides with that part of a uniform draw from another data set.

    Args:
        others: the other data set, with images of the same shape.
        side: side of the square over the image's shorter side.

    Raises:
        InvalidArgument: `side` outside [0, 1].
    """
    draw = missing_block_mask(side)

    def corrupt_one(rng, x, index=0):
        other = to_float(others[np.array([rng.integers(len(others))])])[0].astype(x.dtype)
        return np.where(draw(rng, x.shape), x, other)

    return corrupt_one


def _hide(draw):
    return lambda rng, x, index=0: np.where(draw(rng, x.shape), x, x.dtype.type(0.0))


def blur(std: float) -> Corruption:
    """Convolves the image, mirrored at its border, with a Gaussian of standard deviation `std` pixels.

    Raises:
        InvalidArgument: `std` is negative.
    """
    if std < 0.0:
        raise InvalidArgument(f"blur: std={std} is out of range: set a value in [0, inf)")
    return lambda rng, x, index=0: ndimage.gaussian_filter(x, (std, std, 0.0), mode="mirror")


def jpeg(quality: int) -> Corruption:
    """Compresses and decompresses as JPEG (4:2:0 chroma for colour), which also rounds to whole grey values.

    Args:
        quality: quality of libjpeg, 1 to 95.

    Raises:
        InvalidArgument: `quality` outside 1..95.
    """
    if not 1 <= quality <= 95:
        raise InvalidArgument(f"jpeg: quality={quality} is out of range: set a value in [1, 95]")

    def corrupt_one(rng, x, index=0):
        squeezed = to_bytes(x)[..., 0] if x.shape[-1] == 1 else to_bytes(x)
        file = io.BytesIO()
        Image.fromarray(squeezed).save(file, "JPEG", quality=quality, subsampling=2)
        return to_float(np.asarray(Image.open(file))).reshape(x.shape).astype(x.dtype)

    return corrupt_one
