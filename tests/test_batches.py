"""Batches are a function of (seed, step): whatever reads them, from wherever, on however many processes."""

import gc
import itertools

import numpy as np
import psutil
import pytest
from absl import flags

from advdiff_jax.data import corruption
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import UserError


@pytest.fixture(autouse=True)
def _flags():
    if not flags.FLAGS.is_parsed():  # grain's worker processes want it so
        flags.FLAGS(["pytest"])


def pictures(count=100, size=4):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def dirty(count=100, size=4):
    return corruption.Dirty(pictures(count, size), 0.5, [corruption.gaussian(0.2)], seed=1)


def take(source, first, count, **options):
    iterator = batches(source, first, **options)
    try:
        return np.stack([np.array(batch) for batch in itertools.islice(iterator, count)])
    finally:
        iterator.close()


@pytest.mark.parametrize("batch_size", [16, 100, 130])
def test_every_epoch_is_a_shuffle_of_its_own(batch_size):
    source = BatchSource(np.arange(100)[:, None], batch_size, seed=0)
    stream = np.concatenate([source[k] for k in range(-(-300 // batch_size))])[:300, 0].reshape(3, 100)
    for epoch in stream:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(100))
    assert not np.array_equal(stream[0], stream[1])


def test_the_order_of_the_shuffles_is_kept():
    """Configs are tuned on it, and runs resume by it."""
    source = BatchSource(np.arange(10), 4, seed=7)
    expected = np.concatenate([np.random.default_rng([7, epoch]).permutation(10) for epoch in range(2)])
    np.testing.assert_array_equal(np.concatenate([source[k] for k in range(5)]), expected)


def test_same_batches_for_any_number_of_workers_and_from_any_step():
    source = BatchSource(dirty(), 16, seed=0, flip=True)
    alone = take(source, 0, 20)
    np.testing.assert_array_equal(take(source, 13, 7), alone[13:])
    for workers in (1, 2):
        np.testing.assert_array_equal(take(source, 3, 17, num_workers=workers), alone[3:])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_hold_disjoint_shares_of_the_same_batch(processes):
    whole = BatchSource(dirty(), 16, seed=0, flip=True)
    parts = [BatchSource(dirty(), 16, 0, index, processes, flip=True) for index in range(processes)]
    for k in (0, 6, 12):  # 6 straddles an epoch
        np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), whole[k])


def test_half_of_the_pictures_are_mirrored_afresh_at_each_visit():
    clean = pictures()
    plain, flipped = BatchSource(clean, 100, 0), BatchSource(clean, 100, 0, flip=True)
    kept = []
    for k in range(20):
        same = np.all(plain[k] == flipped[k], axis=(1, 2, 3))
        np.testing.assert_array_equal(flipped[k][~same], plain[k][~same][:, :, ::-1])
        kept.append(same)
    assert np.mean(kept) == pytest.approx(0.5, abs=0.06)  # 2,000 coins: five standard deviations
    assert not np.array_equal(kept[0], kept[1])


class Broken:
    """A data set that refuses."""

    shape, dtype = (10, 2), np.dtype(np.float32)

    def __len__(self):
        return 10

    def __getitem__(self, indices):
        raise UserError("picture 3 is bad")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refusal_reaches_the_caller_as_it_is(workers):
    iterator = batches(BatchSource(Broken(), 4, 0), 0, workers)
    with pytest.raises(UserError, match="picture 3 is bad"):
        next(iterator)
    iterator.close()


def test_memory_stays_flat_over_epochs():
    """Growth over three epochs is far less than an epoch's pictures, from the second epoch on."""
    source, process = BatchSource(dirty(2000, 32), 100, seed=0, flip=True), psutil.Process()
    iterator = batches(source, 0)
    used = []
    for _ in range(4):
        for _ in range(20):
            next(iterator)
        gc.collect()
        used.append(process.memory_info().rss)
    iterator.close()
    assert max(used[1:]) - used[0] < 3 * 2000 * 32 * 32 * 3 / 2
