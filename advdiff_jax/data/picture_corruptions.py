"""Dirt of pictures: functions `(rng, x, index) -> x` of one float picture [H, W, C] in [-1, 1] (see `corruption`)."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from advdiff_jax.data.corruption import Corruption
from advdiff_jax.data.wire import to_bytes, to_float


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return value


def salt_and_pepper(share: float) -> Corruption:
    """Sets a share of the pixels (all channels together) to black or white, evenly.

    Raises:
        ValueError: `share` outside [0, 1].
    """
    _share("salt_and_pepper", share)

    def corrupt_one(rng, x, index=0):
        hit = rng.uniform(size=(*x.shape[:2], 1)) < share
        return np.where(hit, rng.choice(np.array([-1.0, 1.0], x.dtype), (*x.shape[:2], 1)), x)

    return corrupt_one


def missing_pixels(share: float) -> Corruption:
    """Sets a share of the pixels (all channels together) to 0, mid-grey.

    Raises:
        ValueError: `share` outside [0, 1].
    """
    _share("missing_pixels", share)
    return lambda rng, x, index=0: np.where(rng.uniform(size=(*x.shape[:2], 1)) < share, x.dtype.type(0.0), x)


def missing_block(side: float) -> Corruption:
    """Sets a square at a random place to 0, mid-grey; it lies wholly inside the picture.

    Args:
        side: side of the square over the picture's shorter side.

    Raises:
        ValueError: `side` outside [0, 1].
    """
    _share("missing_block", side)

    def corrupt_one(rng, x, index=0):
        length = round(side * min(x.shape[:2]))
        top, left = (rng.integers(extent - length + 1) for extent in x.shape[:2])
        out = x.copy()
        out[top : top + length, left : left + length] = 0.0
        return out

    return corrupt_one


def blur(std: float) -> Corruption:
    """Convolves with a Gaussian of standard deviation `std` pixels, mirrored at the border.

    Raises:
        ValueError: `std` is negative.
    """
    if std < 0.0:
        raise ValueError(f"negative blur: {std}")
    return lambda rng, x, index=0: ndimage.gaussian_filter(x, (std, std, 0.0), mode="mirror")


def jpeg(quality: int) -> Corruption:
    """Compresses and decompresses as JPEG (4:2:0 chroma for colour), which also rounds to whole grey values.

    Args:
        quality: of libjpeg, 1 to 95.

    Raises:
        ValueError: `quality` outside 1..95.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"jpeg_quality must lie in 1..95, got {quality}")

    def corrupt_one(rng, x, index=0):
        squeezed = to_bytes(x)[..., 0] if x.shape[-1] == 1 else to_bytes(x)
        file = io.BytesIO()
        Image.fromarray(squeezed).save(file, "JPEG", quality=quality, subsampling=2)
        return to_float(np.asarray(Image.open(file))).reshape(x.shape).astype(x.dtype)

    return corrupt_one
