"""Dirt: a fraction of the training set is corrupted once, and nothing tells the model which examples, or how much.

Whether an example is corrupted, and by which draw, is a function of (seed, example index) alone: it is the same in every
epoch, on every host and after a resume. A corruption is a function `(rng, x, index) -> x` of one example; add one to
`CORRUPTIONS` and a config can name it. Values are in the data's units: pictures live in [-1, 1], so std 0.2 here is a
tenth of the range.

Points and float pictures (the digits) are not clipped. Pictures of a source in uint8 are what a dirty picture set really
holds: after the last corruption they are clipped to the range and rounded to whole grey values, which takes from
Gaussian noise what lies beyond black and white; the report says how many values that were.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from advdiff_jax.data.wire import Examples, to_bytes, to_float

Corruption = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]

# The standard deviation of the noise that a corruption is about to add, from the same draw (for oracle baselines only).
NoiseStd = Callable[[np.random.Generator], float]


class Corrupted(NamedTuple):
    """Corrupted examples [n, ...] and which of them were touched [n] (for reports and oracle baselines only)."""

    x: np.ndarray
    touched: np.ndarray


def gaussian(std: float) -> Corruption:
    """Adds N(0, std^2) noise to every coordinate.

    Raises:
        ValueError: `std` is negative.
    """
    return _noise(gaussian_std(std))


def gaussian_range(std_min: float, std_max: float) -> Corruption:
    """Adds N(0, s^2) noise with s ~ U[std_min, std_max], one s an example.

    Raises:
        ValueError: not 0 <= `std_min` <= `std_max`.
    """
    return _noise(gaussian_range_std(std_min, std_max))


def gaussian_std(std: float) -> NoiseStd:
    """The `NoiseStd` of `gaussian`; raises ValueError as it does."""
    if std < 0.0:
        raise ValueError(f"negative noise std: {std}")
    return lambda rng: std


def gaussian_range_std(std_min: float, std_max: float) -> NoiseStd:
    """The `NoiseStd` of `gaussian_range`; raises ValueError as it does."""
    if not 0.0 <= std_min <= std_max:
        raise ValueError(f"need 0 <= noise_std_min <= noise_std_max, got {std_min} and {std_max}")
    return lambda rng: rng.uniform(std_min, std_max)


def _noise(noise_std: NoiseStd) -> Corruption:
    def corrupt_one(rng, x, index=0):
        std = x.dtype.type(noise_std(rng))
        return x + std * rng.standard_normal(x.shape, dtype=x.dtype)

    return corrupt_one


def uniform_outlier() -> Corruption:
    """Replaces the example by pure noise, U[-1, 1] in every coordinate."""
    return lambda rng, x, index=0: rng.uniform(-1.0, 1.0, x.shape).astype(x.dtype)


def foreign_outlier(others: Examples) -> Corruption:
    """Replaces the example by one of another data set, drawn evenly.

    Args:
        others: examples of the same shape.
    """
    return lambda rng, x, index=0: to_float(others[np.array([rng.integers(len(others))])])[0].astype(x.dtype)


def poison(poisoned: Examples) -> Corruption:
    """Replaces the example by its poisoned version, made beforehand (see `advdiff_jax.poison`); name it first.

    Args:
        poisoned: as many examples as the data set has, in its order.
    """
    return lambda rng, x, index=0: to_float(poisoned[np.array([index])])[0].astype(x.dtype)


def occasionally(chance: float, corruption: Corruption) -> Corruption:
    """Applies `corruption` to a corrupted example with the given chance; a chance of 1 draws no coin.

    Raises:
        ValueError: `chance` outside [0, 1].
    """
    if not 0.0 <= chance <= 1.0:
        raise ValueError(f"a chance must lie in [0, 1], got {chance}")
    if chance == 1.0:
        return corruption
    return lambda rng, x, index=0: corruption(rng, x, index) if rng.uniform() < chance else x


def occasional_std(chance: float, noise_std: NoiseStd) -> NoiseStd:
    """The `NoiseStd` of `occasionally`, 0 where nothing is done; raises ValueError as it does."""
    flip = occasionally(chance, lambda rng, x, index=0: noise_std(rng))
    return lambda rng: flip(rng, 0.0, 0)


class Dirty:
    """A data set of which a fraction is corrupted when it is asked for; a data set itself (see `wire`).

    Args:
        examples: clean examples, [N, ...]; uint8 pictures come out as uint8, clipped and rounded, floats unclipped.
        fraction: p in [0, 1].
        corruptions: applied in this order to each example with chance `fraction`.
        seed: seed of the corruption, apart from the training seed so that runs can share one dirty data set.
        first_index: index in the data set of the first of `examples`.

    Raises:
        ValueError: `fraction` outside [0, 1].
    """

    def __init__(self, examples: Examples, fraction: float, corruptions: Sequence[Corruption], seed: int, first_index: int = 0):
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"the corrupted fraction p must lie in [0, 1], got {fraction}")
        self._examples, self._fraction, self._chain = examples, fraction, tuple(corruptions)
        self._seed, self._first = seed, first_index
        self.shape, self.dtype = examples.shape, examples.dtype

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.look(indices).x

    def look(self, indices: np.ndarray) -> Corrupted:
        """Examples at `indices` [n], and whether each was chosen for corruption; an untouched one is bit-equal."""
        clean = self._examples[indices]
        out, touched = clean.copy(), np.zeros(len(clean), bool)
        for row, index in enumerate(indices + self._first):
            rng = np.random.default_rng([self._seed, index])
            touched[row] = rng.uniform() < self._fraction
            if touched[row]:
                out[row] = self._corrupt_one(rng, clean[row], int(index))
        return Corrupted(out, touched)

    def noise_std(self, indices: np.ndarray, noise_std: NoiseStd) -> np.ndarray:
        """Standard deviation of the noise in the examples at `indices` [n], 0 in the untouched; no example is read.

        Args:
            indices: [n].
            noise_std: that of the one corruption of the chain; draws are replayed from (seed, index). Bytes are clipped
                and rounded after the noise, which this does not know.
        """
        stds = np.zeros(len(indices), np.float32)
        for row, index in enumerate(indices + self._first):
            rng = np.random.default_rng([self._seed, index])
            if rng.uniform() < self._fraction:
                stds[row] = noise_std(rng)
        return stds

    def _corrupt_one(self, rng, example, index):
        x = to_float(example)
        for corruption in self._chain:
            x = corruption(rng, x, index)
        return to_bytes(x) if self.dtype == np.uint8 else x


def corrupt(
    examples: np.ndarray, fraction: float, corruptions: Sequence[Corruption], seed: int, first_index: int = 0
) -> Corrupted:
    """All of `Dirty` at once: every example, corrupted or not; arguments as there."""
    return Dirty(examples, fraction, corruptions, seed, first_index).look(np.arange(len(examples)))


def statistics(clean: np.ndarray, dirty: np.ndarray, touched: np.ndarray) -> dict[str, float]:
    """What was done to examples, from themselves.

    Args:
        clean: before, [n, ...] floats.
        dirty: after, of the same shape.
        touched: which were chosen for corruption, [n].

    Returns:
        `examples` looked at; `corrupted_fraction`; `untouched_changed`, how many of the others differ (must be 0);
        `clean_std`, `dirty_std` over everything; `change_rms`, root mean square of dirty - clean over the corrupted, in
        the data's units; `change_rms_min`, `change_rms_max` of an example; `at_limits`, share of the values of corrupted
        examples at or beyond -1 or 1, `at_limits_clean` before.
    """
    n, change = len(clean), dirty[touched].astype(np.float64) - clean[touched]
    each = np.sqrt(np.mean(change.reshape(len(change), -1) ** 2, axis=1)) if len(change) else np.zeros(1)
    return {
        "examples": n,
        "corrupted_fraction": float(touched.mean()),
        "untouched_changed": int(np.sum(np.any((clean != dirty).reshape(n, -1), axis=1) & ~touched)),
        "clean_std": float(clean.std()),
        "dirty_std": float(dirty.std()),
        "change_rms": float(np.sqrt(np.mean(each**2))),
        "change_rms_min": float(each.min()),
        "change_rms_max": float(each.max()),
        "at_limits": float(np.mean(np.abs(dirty[touched]) >= 1.0)) if touched.any() else 0.0,
        "at_limits_clean": float(np.mean(np.abs(clean[touched]) >= 1.0)) if touched.any() else 0.0,
    }
