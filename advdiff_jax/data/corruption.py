"""Corruption of the training set: a fraction of the examples is corrupted once; the model knows neither which nor how much.

The corruption of an example is a function of (seed, example index) alone: it is the same in every epoch, on every host and
after a resume. A corruption is a function `(rng, x, index) -> x` of one example; `builders.corruptions` gives it a name for
configs. Values are in the data's units: images live in [-1, 1], so std 0.2 is a tenth of the range.

A training set is stored as float32 or as uint8. Floats (points, the digits, `data.storage="float"`) are neither clipped nor
rounded. Images of uint8 are, as in a real corrupted set: after the last corruption they are clipped to [-1, 1] and rounded to
whole grey values. Clipping truncates Gaussian noise beyond black and white; the report gives the share of values at these
limits.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from advdiff_jax.data.pixels import Examples, as_stored, to_float
from advdiff_jax.errors import InvalidArgument

Corruption = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


class NoiseStd(NamedTuple):
    """The standard deviation of the noise that a corruption adds (for oracle baselines only).

    Attributes:
        draw: rng -> the std of one example; replays the corruption's own draw.
        least: the smallest std that `draw` can return.
    """

    draw: Callable[[np.random.Generator], float]
    least: float


class Corrupted(NamedTuple):
    """Examples after corruption.

    Attributes:
        x: the examples, [n, ...].
        is_corrupted: whether each was chosen for corruption, [n]; for reports and oracle baselines only.
    """

    x: np.ndarray
    is_corrupted: np.ndarray


def gaussian(std: float) -> Corruption:
    """Adds N(0, std^2) noise to every coordinate.

    Raises:
        InvalidArgument: `std` is negative.
    """
    return _noise(gaussian_std(std))


def gaussian_range(std_min: float, std_max: float) -> Corruption:
    """Adds N(0, s^2) noise, with one draw s ~ U[std_min, std_max] per example.

    Raises:
        InvalidArgument: 0 <= `std_min` <= `std_max` does not hold.
    """
    return _noise(gaussian_range_std(std_min, std_max))


def gaussian_std(std: float) -> NoiseStd:
    """Builds the `NoiseStd` of `gaussian`; raises InvalidArgument as it does."""
    if std < 0.0:
        raise InvalidArgument(f"noise_std={std} is out of range: set a value in [0, inf)")
    return NoiseStd(lambda rng: std, std)


def gaussian_range_std(std_min: float, std_max: float) -> NoiseStd:
    """Builds the `NoiseStd` of `gaussian_range`; raises InvalidArgument as it does."""
    if not 0.0 <= std_min <= std_max:
        raise InvalidArgument(
            f"noise_std_min={std_min} is negative or exceeds noise_std_max={std_max}: set 0 <= noise_std_min <= noise_std_max"
        )
    return NoiseStd(lambda rng: rng.uniform(std_min, std_max), std_min)


def _noise(noise_std: NoiseStd) -> Corruption:
    def corrupt_one(rng, x, index=0):
        std = x.dtype.type(noise_std.draw(rng))
        return x + std * rng.standard_normal(x.shape, dtype=x.dtype)

    return corrupt_one


def uniform_outlier() -> Corruption:
    """Replaces the example by noise, uniform on [-1, 1] in every coordinate."""
    return lambda rng, x, index=0: rng.uniform(-1.0, 1.0, x.shape).astype(x.dtype)


def foreign_outlier(others: Examples) -> Corruption:
    """Replaces the example by a uniform draw from another data set.

    Args:
        others: the other data set, with examples of the same shape.
    """
    return lambda rng, x, index=0: to_float(others[np.array([rng.integers(len(others))])])[0].astype(x.dtype)


def poison(poisoned: Examples) -> Corruption:
    """Replaces the example by its poisoned version, which `modes.poison` wrote; list it before other corruptions.

    Args:
        poisoned: poisoned version of each example of the data set, in the same order.
    """
    return lambda rng, x, index=0: to_float(poisoned[np.array([index])])[0].astype(x.dtype)


def occasionally(chance: float, corruption: Corruption) -> Corruption:
    """Applies `corruption` to a corrupted example with probability `chance`; a chance of 1 draws no random number.

    Raises:
        InvalidArgument: `chance` outside [0, 1].
    """
    if not 0.0 <= chance <= 1.0:
        raise InvalidArgument(f"chance={chance} is out of range: set a value in [0, 1]")
    if chance == 1.0:
        return corruption
    return lambda rng, x, index=0: corruption(rng, x, index) if rng.uniform() < chance else x


def occasional_std(chance: float, noise_std: NoiseStd) -> NoiseStd:
    """Builds the `NoiseStd` of `occasionally`, 0 for an example that it leaves clean; raises InvalidArgument as it does."""
    draw = occasionally(chance, lambda rng, x, index=0: noise_std.draw(rng))
    return NoiseStd(lambda rng: draw(rng, 0.0, 0), noise_std.least if chance == 1.0 else 0.0)


class CorruptedDataset:
    """A data set (see `pixels`) that corrupts a fraction of its examples on access.

    Args:
        examples: clean examples, [N, ...].
        fraction: probability p in [0, 1] that an example is corrupted.
        corruptions: applied in this order to each example that is corrupted.
        seed: seed of the corruption; it is not the training seed, so that runs can share one corrupted data set.
        first_index: index of `examples[0]` in the whole data set.
        dtype: how examples are stored after corruption: uint8, clipped and rounded, or float32; None: that of `examples`.

    Raises:
        InvalidArgument: `fraction` outside [0, 1].
    """

    def __init__(
        self,
        examples: Examples,
        fraction: float,
        corruptions: Sequence[Corruption],
        seed: int,
        first_index: int = 0,
        dtype: np.dtype | None = None,
    ):
        if not 0.0 <= fraction <= 1.0:
            raise InvalidArgument(f"fraction={fraction} is out of range: set a value in [0, 1]")
        self._examples, self._fraction, self._chain = examples, fraction, tuple(corruptions)
        self._seed, self._first = seed, first_index
        self.shape, self.dtype = examples.shape, examples.dtype if dtype is None else np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.read(indices).x

    def read(self, indices: np.ndarray) -> Corrupted:
        """Returns the examples at `indices` [n], and whether each is corrupted; clean examples have equal values."""
        clean = self._examples[indices]
        out = clean.copy() if self.dtype == clean.dtype else as_stored(to_float(clean), self.dtype)
        is_corrupted = np.zeros(len(clean), bool)
        for row, index in enumerate(indices + self._first):
            rng = np.random.default_rng([self._seed, index])
            is_corrupted[row] = rng.uniform() < self._fraction
            if is_corrupted[row]:
                out[row] = self._corrupt_one(rng, clean[row], int(index))
        return Corrupted(out, is_corrupted)

    def is_corrupted(self, indices: np.ndarray) -> np.ndarray:
        """Returns whether the examples at `indices` [n] are chosen for corruption, [n] bool; reads no example."""
        draws = (np.random.default_rng([self._seed, index]).uniform() for index in indices + self._first)
        return np.fromiter(draws, float, len(indices)) < self._fraction

    def noise_std(self, indices: np.ndarray, noise_std: NoiseStd) -> np.ndarray:
        """Returns the noise's standard deviation in the examples at `indices` [n], 0 for clean ones; reads no example.

        Args:
            indices: indices of the examples, [n].
            noise_std: the `NoiseStd` of the only corruption in the chain; its draws are replayed from (seed, index). The
                result ignores that uint8 images are clipped and rounded after the noise.
        """
        stds = np.zeros(len(indices), np.float32)
        for row, index in enumerate(indices + self._first):
            rng = np.random.default_rng([self._seed, index])
            if rng.uniform() < self._fraction:
                stds[row] = noise_std.draw(rng)
        return stds

    def mask(self, indices: np.ndarray, replays: Sequence[Callable]) -> np.ndarray:
        """Returns which pixels of the examples at `indices` [n] are seen, [n, H, W, 1] bool; reads no example.

        Args:
            indices: indices of the examples, [n].
            replays: for each corruption of the chain, (rng, mask [H, W, 1], index) -> mask; it draws what the corruption draws.
        """
        masks = np.ones((len(indices), *self.shape[1:3], 1), bool)
        for row, index in enumerate(indices + self._first):
            rng = np.random.default_rng([self._seed, index])
            if rng.uniform() < self._fraction:
                masks[row] = functools.reduce(lambda mask, replay: replay(rng, mask, int(index)), replays, masks[row])
        return masks

    def _corrupt_one(self, rng, example, index):
        x = to_float(example)
        for corruption in self._chain:
            x = corruption(rng, x, index)
        return as_stored(x, self.dtype)


def corrupt(
    examples: np.ndarray, fraction: float, corruptions: Sequence[Corruption], seed: int, first_index: int = 0
) -> Corrupted:
    """Reads a whole `CorruptedDataset`; takes the same arguments."""
    return CorruptedDataset(examples, fraction, corruptions, seed, first_index).read(np.arange(len(examples)))


def statistics(clean: np.ndarray, dirty: np.ndarray, is_corrupted: np.ndarray) -> dict[str, float]:
    """Measures a corruption by comparing examples before and after it.

    Args:
        clean: examples before corruption, [n, ...] floats.
        dirty: the same examples after it, of the same shape.
        is_corrupted: whether each was chosen for corruption, [n].

    Returns:
        `examples`: n.
        `corrupted_fraction`: share of the examples that was chosen for corruption.
        `clean_changed`: number of the other examples that differ from `clean`; must be 0.
        `clean_std`, `dirty_std`: standard deviation over all values.
        `change_rms`: root mean square of dirty - clean over corrupted examples, in the data's units.
        `change_rms_min`, `change_rms_max`: smallest and largest root mean square of one corrupted example.
        `at_limits`, `at_limits_clean`: share of the corrupted examples' values at or beyond -1 or 1, after and before.
    """
    n, change = len(clean), dirty[is_corrupted].astype(np.float64) - clean[is_corrupted]
    each = np.sqrt(np.mean(change.reshape(len(change), -1) ** 2, axis=1)) if len(change) else np.zeros(1)
    return {
        "examples": n,
        "corrupted_fraction": float(is_corrupted.mean()),
        "clean_changed": int(np.sum(np.any((clean != dirty).reshape(n, -1), axis=1) & ~is_corrupted)),
        "clean_std": float(clean.std()),
        "dirty_std": float(dirty.std()),
        "change_rms": float(np.sqrt(np.mean(each**2))),
        "change_rms_min": float(each.min()),
        "change_rms_max": float(each.max()),
        "at_limits": float(np.mean(np.abs(dirty[is_corrupted]) >= 1.0)) if is_corrupted.any() else 0.0,
        "at_limits_clean": float(np.mean(np.abs(clean[is_corrupted]) >= 1.0)) if is_corrupted.any() else 0.0,
    }
