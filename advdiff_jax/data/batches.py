"""Computes batch k from (seed, k) alone, so a run resumes at any step, on any number of hosts.

Position g = k * batch_size + j of the endless stream holds example `permutation(epoch g // N)[g % N]`: each epoch has one
global shuffle, and each process a disjoint shard. One indexing call on the data set gathers a batch: for an array it is 50
times faster than indexing single examples; for images it reads, decodes and corrupts the batch. grain prefetches in threads
or, with `num_workers`, in worker processes that each compute whole batches: their number does not change the batches.
"""

import functools
import itertools
import logging
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterator

import grain
import numpy as np

from advdiff_jax.data.pairs import Pairs
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

SHARED_MEMORY = pathlib.Path("/dev/shm")  # through which worker processes on Linux hand over batches; Docker gives it 64 MB
_FLIPS = 1  # separates the random stream of the flips from the shuffles' stream, which is seeded by two numbers


class BatchSource:
    """Random access to this process's share of batch k: `source[k]` -> {"examples": [batch_size / process_count, ...]}.

    Args:
        examples: the training set [N, ...], a data set (see `pixels`).
        batch_size: examples in a batch over all processes; must be divisible by `process_count`.
        seed: seed of the shuffles and flips.
        process_index: index of this process's share.
        process_count: number of shares.
        flip: mirrors each image [H, W, C] with chance 1/2, drawn anew at each visit, after its corruption.
        noise_std: maps indices [n] to the std of the noise in these examples [n]; None leaves it out.
        mask: maps indices [n] to masks [n, H, W, 1] bool, True where a pixel is seen; mirrored with the images. None leaves it
            out.
        pairs: draws examples with their times, instead of epoch after epoch; None: the step draws the times.
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
        mask: Callable[[np.ndarray], np.ndarray] | None = None,
        pairs: Pairs | None = None,
    ):
        self._noise_std, self._mask, self._pairs = noise_std, mask, pairs
        self._examples, self._batch_size, self._seed, self._flip = examples, batch_size, seed, flip
        share = batch_size // process_count
        self._share = np.arange(process_index * share, (process_index + 1) * share)
        self._permutation = _Permutations(len(examples), seed)

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // self._batch_size

    @property
    def nbytes(self) -> int:
        """Bytes of the examples of a batch, in this process's share."""
        return len(self._share) * int(np.prod(self._examples.shape[1:])) * np.dtype(self._examples.dtype).itemsize

    def indices(self, step: int) -> np.ndarray:
        """Returns the indices [b] of the examples in this process's share of batch `step`."""
        if self._pairs:
            return self._pairs.draw(step, self._batch_size)[0][self._share]
        epochs, offsets = np.divmod(step * self._batch_size + self._share, len(self._examples))
        indices = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            indices[in_epoch] = self._permutation(int(epoch))[offsets[in_epoch]]
        return indices

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Returns this process's share of batch `step`: `examples` [b, ...], `noise_std` [b] and `mask` [b, ...] if given; with
        pairs, `time_quantile` [b].
        """
        indices = self.indices(step)
        images = {"examples": self._examples[indices]} | ({} if self._mask is None else {"mask": self._mask(indices)})
        if self._flip:
            coins = np.random.default_rng([self._seed, _FLIPS, step]).integers(2, size=self._batch_size)[self._share]
            flipped = coins.astype(bool).reshape(-1, 1, 1, 1)
            images = {name: np.where(flipped, batch[:, :, ::-1], batch) for name, batch in images.items()}
        known = {} if self._noise_std is None else {"noise_std": self._noise_std(indices)}
        if self._pairs:
            known["time_quantile"] = self._pairs.draw(step, self._batch_size)[1][self._share]
        return {**images, **known}


class _Permutations:
    """Caches the permutation of an epoch: many batches share it, and a batch may straddle two epochs."""

    def __init__(self, count, seed):
        self._arguments = count, seed
        self._cached = functools.lru_cache(maxsize=4)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(count))

    def __call__(self, epoch):
        return self._cached(epoch)

    def __reduce__(self):
        return _Permutations, self._arguments  # a worker process fills its own cache


def batches(source: BatchSource, first_step: int, num_workers: int = 0, read_ahead: int = 8) -> Iterator:
    """Iterates over batches `first_step`, `first_step` + 1, ...; closing the iterator ends its threads and processes.

    Args:
        source: the batches.
        first_step: step of the first batch.
        num_workers: worker processes; 0 reads in two threads of this process, which is best for arrays in memory. Workers
            are spawned and import this package: if the program defines absl flags, they must be parsed first.
        read_ahead: batches to prefetch. With workers it is the number of each worker, and at least one. Where the free shared
            memory holds fewer, the number is lowered with a warning. 0 without workers reads each batch on demand, which
            costs less for small arrays than a hand-over between threads.

    Raises:
        UserError: the free shared memory is too small for so many workers.
    """
    if not num_workers and not read_ahead:
        return (source[step] for step in itertools.count(first_step))
    dataset = grain.MapDataset.source(source).slice(slice(first_step, None))
    if not num_workers:
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=read_ahead)))
    read_ahead = _fit_shared_memory(source.nbytes, num_workers, max(1, read_ahead))
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=read_ahead)
    # A worker computes one batch after another: more threads in it would only contend for its interpreter lock.
    within = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return iter(dataset.to_iter_dataset(within).mp_prefetch(options, worker_init_fn=_ignore_interrupts))


def _fit_shared_memory(batch_bytes: int, num_workers: int, read_ahead: int) -> int:
    """Returns how many batches each worker may read ahead: a worker that finds no room is killed by SIGBUS in mid-run."""
    if not SHARED_MEMORY.is_dir():
        return read_ahead
    free = shutil.disk_usage(SHARED_MEMORY).free
    room = int(0.9 * free) // batch_bytes - 4  # batches; 4 are in use or being freed
    # grain holds a batch more than it reads ahead, both in the worker's queue and in this process.
    fitting = room // (2 * num_workers) - 1
    if fitting >= read_ahead:
        return read_ahead
    needed = (2 * num_workers * (read_ahead + 1) + 4) * batch_bytes
    said = (
        f"{num_workers} worker processes that read {read_ahead} batches of {batch_bytes / 1e6:.1f} MB ahead need "
        f"{needed / 1e6:.0f} MB of shared memory, and {SHARED_MEMORY} has {free / 1e6:.0f} MB free"
    )
    if fitting < 1:
        raise UserError(
            f"config.data.num_workers={num_workers}: {said}: set --config.data.num_workers={max(0, room // 4)}"
            f"{' (threads, which need none)' if room < 4 else ' --config.data.read_ahead=1'}, lower config.train.batch_size, "
            "or enlarge it (docker run --shm-size=1g)"
        )
    log.warning("%s: they read %d ahead; config.data.read_ahead=%d avoids this line", said, fitting, fitting)
    return fitting


def _ignore_interrupts(index: int, count: int) -> None:
    """Ignores Ctrl-C, which a terminal sends to every process: the parent saves a checkpoint, then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
