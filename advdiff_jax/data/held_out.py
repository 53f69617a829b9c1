"""Holds examples of a source out of training: a random split, fixed by a seed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from advdiff_jax.data import fingerprint
from advdiff_jax.data.pixels import FEWEST, Examples
from advdiff_jax.data.sources import Source, without_replacement
from advdiff_jax.errors import InvalidArgument

_SPLIT = 0x68656C64  # separates the random stream of the split from other streams of the same seed


class Split(NamedTuple):
    """A source in two parts.

    Attributes:
        source: what is left for training, and for the clean draws of a source whose distribution is not known.
        held_out: the other examples, [count, ...], clean; None: there are none.
        labels: () -> their classes [count]; None: they have none.
    """

    source: Source
    held_out: Examples | None
    labels: Callable[[], np.ndarray] | None = None


class Subset:
    """The examples of a data set (see `pixels`) at given indices, read on access.

    Args:
        examples: data set, [N, ...].
        indices: ascending indices into it, [n].
    """

    def __init__(self, examples: Examples, indices: np.ndarray):
        self._examples, self._indices = examples, indices
        self.shape, self.dtype = (len(indices), *examples.shape[1:]), examples.dtype
        self.inventory = getattr(examples, "inventory", ())

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._examples[self._indices[indices]]

    def fingerprint(self) -> dict[str, Any]:
        """Returns the fingerprint of the whole data set, with the number of examples here and a checksum of their indices."""
        indices = fingerprint.of_array(self._indices)["sha256"]
        return fingerprint.of(self._examples) | {"trained_on": len(self), "trained_on_indices": indices}


def hold_out(source: Source, count: int, seed: int) -> Split:
    """Takes `count` random examples away from a source.

    Clean draws of a source that `draws_examples` then come from the examples that are left, so that the reference of a metric
    holds no held-out example.

    Args:
        source: before any corruption.
        count: number of examples to hold out, at least 1.
        seed: seed of the split.

    Raises:
        InvalidArgument: fewer than four examples are left for training.
    """
    total = len(source.train)
    if count > total - FEWEST:
        raise InvalidArgument(
            f"held_out={count:,} leaves {max(0, total - count):,} of {total:,} examples, and training needs {FEWEST} or more: "
            f"set at most {max(0, total - FEWEST):,}"
        )
    order = np.random.default_rng([seed, _SPLIT]).permutation(total)
    kept_out, kept = np.sort(order[:count]), np.sort(order[count:])
    held_out, left = (_subset(source, part) for part in (kept_out, kept))
    masks = None if source.masks is None else Subset(source.masks, kept)
    labels = source.labels
    own, others = (None, None) if labels is None else (lambda: labels()[kept], lambda: labels()[kept_out])
    source = source._replace(train=left, masks=masks, labels=own)
    if source.draws_examples:
        source = source._replace(clean=without_replacement(left))
    return Split(source, held_out, others)


def _subset(source, indices):
    return Subset(source.train, indices) if source.on_the_fly else source.train[indices]
