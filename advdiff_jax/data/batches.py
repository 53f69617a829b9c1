"""Batches whose position is the step: batch k is a function of (seed, k), so a run resumes anywhere, on any hosts.

Position g = k * batch_size + j of the endless stream is example `permutation(epoch g // N)[g % N]`: a global shuffle per
epoch, disjoint shards per process. grain reads ahead in threads; a batch is gathered in one NumPy call, which for points
is 50 times faster than an element at a time.
"""

import functools
from collections.abc import Iterator

import grain
import numpy as np


class BatchSource:
    """Random access to this process's share of batch k: `source[k]` -> [batch_size / process_count, ...].

    Args:
        examples: the training set, [N, ...].
        batch_size: examples of a batch over all processes; must be divisible by `process_count`.
        seed: seed of the shuffles.
        process_index: which share.
        process_count: number of shares.
    """

    def __init__(self, examples: np.ndarray, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1):
        self._examples, self._batch_size = examples, batch_size
        share = batch_size // process_count
        self._share = np.arange(process_index * share, (process_index + 1) * share)
        # An epoch's permutation serves many batches; two are alive where a batch straddles a boundary.
        self._permutation = functools.lru_cache(maxsize=4)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(examples))
        )

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // self._batch_size

    def __getitem__(self, step: int) -> np.ndarray:
        epochs, offsets = np.divmod(step * self._batch_size + self._share, len(self._examples))
        indices = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[offsets[here]]
        return self._examples[indices]


def batches(source: BatchSource, first_step: int) -> Iterator[np.ndarray]:
    """Iterates over batches `first_step`, `first_step` + 1, ..., read ahead in two threads."""
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(grain.MapDataset.source(source).slice(slice(first_step, None)).to_iter_dataset(options))
