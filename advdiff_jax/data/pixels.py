"""Pixel formats: images are uint8 from the disk to the device, and float in [-1, 1] in every computation.

A *data set* in `data` has `len`, `shape`, `dtype` and `[indices]` like a NumPy array [N, ...]. Arrays are data sets, and so
are `records.Images`, which decodes examples on access, and `corruption.CorruptedDataset`, which corrupts them on access.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from advdiff_jax.errors import InvalidArgument

FEWEST = 4  # examples of a training set; metrics and statistics compare at least so many


class Examples(Protocol):
    """A data set: a NumPy array, or an object that is indexed like one."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Returns the examples [n, ...] at the integer indices [n]."""


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) of `data.size`: the side of a square, or (height, width).

    Raises:
        InvalidArgument: `size` is neither, or is not positive.
    """
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise InvalidArgument(f"size={size!r} is out of range: set a side in [1, inf), or (height, width)")
    return int(pair[0]), int(pair[1])


def to_float(x):
    """Converts uint8 0..255 to float32 in [-1, 1]; returns other dtypes unchanged. Takes NumPy and JAX arrays."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1.0) if x.dtype == np.uint8 else x


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Converts [-1, 1] to uint8, clipped and rounded: the inverse of `to_float` on its range."""
    return np.clip(np.rint((x + 1.0) * 127.5), 0, 255).astype(np.uint8)


def as_stored(samples: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns floats as a data set of this dtype holds them: clipped and rounded to uint8, else of that dtype."""
    return to_bytes(samples) if dtype == np.uint8 else samples.astype(dtype, copy=False)


def first(examples: Examples, count: int) -> np.ndarray:
    """Returns the first `count` examples, or all if there are fewer, as floats."""
    return to_float(examples[np.arange(min(count, len(examples)))])


def evenly_spaced(examples: Examples, count: int) -> np.ndarray:
    """Returns `count` examples evenly spaced over the data set, or all if there are fewer, as floats."""
    return to_float(examples[evenly_spaced_indices(len(examples), count)])


def evenly_spaced_indices(total: int, count: int) -> np.ndarray:
    """Returns `count` evenly spaced indices below `total`, or all if there are fewer."""
    return np.arange(total) if count >= total else np.arange(count) * total // count
