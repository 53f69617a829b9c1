"""How pictures travel: uint8 from the disk to the device, float in [-1, 1] wherever anything is computed.

A *data set* here is whatever can be asked for `len`, `shape`, `dtype` and `[indices]` as a NumPy array [N, ...] can. An
array is one; `records.Pictures` and `corruption.Dirty` are others, which read and corrupt what they are asked for.
"""

from typing import Protocol

import numpy as np


class Examples(Protocol):
    """A data set: a NumPy array, or what can be indexed like one."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Integer indices [n] -> examples [n, ...]."""


def to_float(x):
    """uint8 0..255 -> float32 in [-1, 1]; anything else is left as it is. For NumPy and for JAX arrays (on the device)."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1.0) if x.dtype == np.uint8 else x


def to_bytes(x: np.ndarray) -> np.ndarray:
    """[-1, 1] -> uint8 by rounding; values beyond are clipped. The inverse of `to_float` on its range."""
    return np.clip(np.rint((x + 1.0) * 127.5), 0, 255).astype(np.uint8)


def first(examples: Examples, count: int) -> np.ndarray:
    """The first `count` examples (all, if there are fewer), as floats."""
    return to_float(examples[np.arange(min(count, len(examples)))])


def spread(examples: Examples, count: int) -> np.ndarray:
    """`count` examples evenly spaced over the data set (all, if there are fewer), as floats."""
    return to_float(examples[spread_indices(len(examples), count)])


def spread_indices(total: int, count: int) -> np.ndarray:
    """`count` evenly spaced indices of `total`, or all of them if there are fewer."""
    return np.arange(total) if count >= total else np.arange(count) * total // count
