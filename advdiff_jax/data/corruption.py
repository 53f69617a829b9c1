"""Dirt: a fraction of the training set is corrupted once, and nothing tells the model which examples, or how much.

Whether an example is corrupted, and by which draw, is a function of (seed, example index) alone: it is the same in every
epoch, on every host and after a resume. A corruption is a function `(rng, x) -> x` of one example; add one to
`CORRUPTIONS` and a config can name it. Values are in the data's units: pictures live in [-1, 1], so std 0.2 here is a
tenth of the range; corrupted pictures are not clipped.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Corruption = Callable[[np.random.Generator, np.ndarray], np.ndarray]


class Corrupted(NamedTuple):
    """Corrupted examples [N, ...] and which of them were touched [N] (for reports and oracle baselines only)."""

    x: np.ndarray
    touched: np.ndarray


def gaussian(std: float) -> Corruption:
    """Adds N(0, std^2) noise to every coordinate.

    Raises:
        ValueError: `std` is negative.
    """
    if std < 0.0:
        raise ValueError(f"negative noise std: {std}")
    return lambda rng, x: x + std * rng.standard_normal(x.shape, dtype=x.dtype)


def corrupt(
    examples: np.ndarray, fraction: float, corruptions: Sequence[Corruption], seed: int, first_index: int = 0
) -> Corrupted:
    """Applies every corruption, in order, to each example with chance `fraction`.

    Args:
        examples: clean examples [N, ...]; left as they are.
        fraction: p in [0, 1].
        corruptions: functions (rng, x) -> x.
        seed: seed of the corruption, apart from the training seed so that runs can share one dirty data set.
        first_index: index in the data set of the first of `examples`.

    Raises:
        ValueError: `fraction` outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"the corrupted fraction p must lie in [0, 1], got {fraction}")
    out, touched = examples.copy(), np.zeros(len(examples), bool)
    for i in range(len(examples)):
        rng = np.random.default_rng([seed, first_index + i])
        touched[i] = rng.uniform() < fraction
        if touched[i]:
            for corruption in corruptions:
                out[i] = corruption(rng, out[i])
    return Corrupted(out, touched)
