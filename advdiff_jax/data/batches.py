"""Batches whose position is the step: batch k is a function of (seed, k), so a run resumes anywhere, on any hosts.

Position g = k * batch_size + j of the endless stream is example `permutation(epoch g // N)[g % N]`: a global shuffle per
epoch, disjoint shards per process. A batch is gathered by one call of the data set: for an array one NumPy call, 50 times
faster than an element at a time; for pictures the reading, decoding and corruption of that batch. grain calls ahead, in
threads or, with `num_workers`, in worker processes that take turns at whole batches: their number changes nothing else.
"""

import functools
import itertools
import signal
from collections.abc import Callable, Iterator

import grain
import numpy as np

from advdiff_jax.data.wire import Examples

_FLIPS = 1  # tells the draws of the flips from those of the shuffles, which are seeded by two numbers


class BatchSource:
    """Random access to this process's share of batch k: `source[k]` -> [batch_size / process_count, ...].

    Args:
        examples: the training set, [N, ...]; an array, or what can be indexed like one.
        batch_size: examples of a batch over all processes; must be divisible by `process_count`.
        seed: seed of the shuffles.
        process_index: which share.
        process_count: number of shares.
        flip: mirror every second picture [H, W, C], drawn afresh at each visit, after its corruption.
        noise_std: for an oracle, indices [n] -> noise of these examples [n]; a batch is then the tuple (examples, noise).
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        flip: bool = False,
        noise_std: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._noise_std = noise_std
        self._examples, self._batch_size, self._seed, self._flip = examples, batch_size, seed, flip
        share = batch_size // process_count
        self._share = np.arange(process_index * share, (process_index + 1) * share)
        self._permutation = _Permutations(len(examples), seed)

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // self._batch_size

    def __getitem__(self, step: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        epochs, offsets = np.divmod(step * self._batch_size + self._share, len(self._examples))
        indices = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[offsets[here]]
        batch = self._examples[indices]
        if self._flip:
            coins = np.random.default_rng([self._seed, _FLIPS, step]).integers(2, size=self._batch_size)[self._share]
            batch = np.where(coins.astype(bool).reshape(-1, 1, 1, 1), batch[:, :, ::-1], batch)
        return batch if self._noise_std is None else (batch, self._noise_std(indices))


class _Permutations:
    """epoch -> its permutation. One serves many batches; two are alive where a batch straddles a boundary."""

    def __init__(self, count, seed):
        self._arguments = count, seed
        self._cached = functools.lru_cache(maxsize=4)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(count))

    def __call__(self, epoch):
        return self._cached(epoch)

    def __reduce__(self):
        return _Permutations, self._arguments  # a worker process fills its own cache


def batches(source: BatchSource, first_step: int, num_workers: int = 0, read_ahead: int = 8) -> Iterator:
    """Iterates over batches `first_step`, `first_step` + 1, ...; close it to end its threads and processes.

    Args:
        source: the batches.
        first_step: the first of them.
        num_workers: worker processes; 0 reads in two threads of this one, which is best for arrays in memory. They are
            started afresh and import this package: absl's flags, if there are any, must be parsed.
        read_ahead: batches ready at a time (for each worker process, if there are any); 0, without workers: each is read
            when it is asked for, which for small arrays costs less than handing it from thread to thread.
    """
    if not num_workers and not read_ahead:
        return (source[step] for step in itertools.count(first_step))
    dataset = grain.MapDataset.source(source).slice(slice(first_step, None))
    if not num_workers:
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=read_ahead)))
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=read_ahead)
    # A worker is one process that computes batch after batch: threads inside would only fight over its interpreter.
    within = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return iter(dataset.to_iter_dataset(within).mp_prefetch(options, worker_init_fn=_leave_interrupts_to_the_parent))


def _leave_interrupts_to_the_parent(index: int, count: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent saves a checkpoint and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
