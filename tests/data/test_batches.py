"""Batches are a function of (seed, step), for any reader, first step and number of processes."""

import gc
import itertools
import types

import numpy as np
import psutil
import pytest
from absl import flags

from advdiff_jax.data import batches as module
from advdiff_jax.data import corruption, image_corruptions
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import UserError


@pytest.fixture(autouse=True)
def _flags():
    if not flags.FLAGS.is_parsed():  # grain's worker processes require it
        flags.FLAGS(["pytest"])


def images(count=100, size=4):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def corrupted():
    return corruption.CorruptedDataset(images(), 0.5, [corruption.gaussian(0.2)], seed=1)


def take(source, first, count, **options):
    iterator = batches(source, first, **options)
    try:
        return np.stack([np.array(batch["examples"]) for batch in itertools.islice(iterator, count)])
    finally:
        iterator.close()


@pytest.mark.parametrize("batch_size", [16, 100, 130, 300])
def test_every_epoch_has_its_own_shuffle(batch_size):
    source = BatchSource(np.arange(100)[:, None], batch_size, seed=0)
    stream = np.concatenate([source[k]["examples"] for k in range(-(-300 // batch_size))])[:300, 0].reshape(3, 100)
    for epoch in stream:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(100))
    assert not np.array_equal(stream[0], stream[1])


def test_the_order_of_the_shuffles_is_fixed():
    """Configs are tuned on this order, and runs resume by it."""
    for seed in (0, 7):
        source = BatchSource(np.arange(10), 4, seed)
        expected = np.concatenate([np.random.default_rng([seed, epoch]).permutation(10) for epoch in range(2)])
        np.testing.assert_array_equal(np.concatenate([source[k]["examples"] for k in range(5)]), expected)


@pytest.mark.parametrize("read_ahead", [0, 8])
@pytest.mark.parametrize("first", [0, 3, 1_000_000])
def test_iteration_starts_at_any_step(first, read_ahead):
    source = BatchSource(np.arange(10), 4, 0)
    expected = [source[k]["examples"] for k in range(first, first + 20)]
    np.testing.assert_array_equal(take(source, first, 20, read_ahead=read_ahead), expected)


def test_worker_processes_do_not_change_the_batches():
    source = BatchSource(corrupted(), 16, seed=0, flip=True)
    expected = [source[k]["examples"] for k in range(3, 20)]
    np.testing.assert_array_equal(take(source, 3, 17), expected)
    np.testing.assert_array_equal(take(source, 3, 17, num_workers=2, read_ahead=0), expected)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_hold_disjoint_shares_of_the_same_batch(processes):
    whole = BatchSource(corrupted(), 16, seed=0, flip=True)
    parts = [BatchSource(corrupted(), 16, 0, index, processes, flip=True) for index in range(processes)]
    for k in (0, 6, 12):  # 6 straddles an epoch
        np.testing.assert_array_equal(np.concatenate([part[k]["examples"] for part in parts]), whole[k]["examples"])


def test_the_noise_std_of_an_oracle_belongs_to_the_examples_of_its_batch():
    examples, stds = np.arange(40), np.linspace(0.0, 1.0, 40)
    assert BatchSource(examples, 16, 0)[0].keys() == {"examples"}
    whole = BatchSource(examples, 16, seed=0, noise_std=stds.__getitem__)
    parts = [BatchSource(examples, 16, 0, index, 2, noise_std=stds.__getitem__) for index in range(2)]
    for k in (0, 2):  # 2 straddles an epoch
        np.testing.assert_array_equal(whole[k]["noise_std"], stds[whole[k]["examples"]])
        np.testing.assert_array_equal(np.concatenate([part[k]["noise_std"] for part in parts]), whole[k]["noise_std"])


def test_half_of_the_images_are_mirrored_anew_at_each_visit():
    plain, flipped = BatchSource(images(), 100, 0), BatchSource(images(), 100, 0, flip=True)
    unchanged = []
    for k in range(20):
        before, after = plain[k]["examples"], flipped[k]["examples"]
        same = np.all(before == after, axis=(1, 2, 3))
        np.testing.assert_array_equal(after[~same], before[~same][:, :, ::-1])
        unchanged.append(same)
    assert np.mean(unchanged) == pytest.approx(0.5, abs=0.06)  # 2,000 coins: five standard deviations
    assert not np.array_equal(unchanged[0], unchanged[1])


class Broken:
    """A data set whose examples cannot be read."""

    shape, dtype = (10, 2), np.dtype(np.float32)

    def __len__(self):
        return 10

    def __getitem__(self, indices):
        raise UserError("image 3 is bad")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_set_reaches_the_caller_unchanged(workers):
    iterator = batches(BatchSource(Broken(), 4, 0), 0, workers)
    with pytest.raises(UserError, match="image 3 is bad"):
        next(iterator)
    iterator.close()


def test_a_small_shared_memory_takes_fewer_batches_or_is_refused(monkeypatch, caplog):
    """celeba's 8 workers read 8 batches of 1.6 MB ahead: 233 MB, of which Docker's 64 MB hold one a worker."""
    free = 0
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    monkeypatch.setattr(module, "SHARED_MEMORY", module.pathlib.Path("/"))
    nbytes = BatchSource(images(4, 64), 128, 0).nbytes
    assert nbytes == 128 * 64 * 64 * 3
    free = 2**26
    assert module._fit_shared_memory(nbytes, 8, 8) == 1
    (record,) = caplog.records
    assert "8 worker processes that read 8 batches of 1.6 MB ahead need 233 MB" in record.getMessage()
    assert "/ has 67 MB free: they read 1 ahead" in record.getMessage()
    said = (
        r"config\.data\.num_workers=8: .* 50\.3 MB .*--config\.data\.num_workers=0 \(threads, .*config\.train\.batch_size, or"
    )
    with pytest.raises(UserError, match=said):
        module._fit_shared_memory(32 * nbytes, 8, 8)
    with pytest.raises(UserError, match=r"set --config\.data\.num_workers=3 --config\.data\.read_ahead=1, lower"):
        module._fit_shared_memory(2 * nbytes, 8, 8)
    assert module._fit_shared_memory(2 * nbytes, 3, 8) == 1
    caplog.clear()
    free = 2**30
    assert module._fit_shared_memory(nbytes, 8, 8) == 8
    assert not caplog.records


def test_batches_are_the_same_where_shared_memory_holds_few(monkeypatch, caplog):
    source = BatchSource(corrupted(), 16, seed=0)
    expected = np.stack([source[k]["examples"] for k in range(6)])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=9 * source.nbytes))
    monkeypatch.setattr(module, "SHARED_MEMORY", module.pathlib.Path("/"))
    np.testing.assert_array_equal(take(source, 0, 6, num_workers=1), expected)
    assert "they read 1 ahead" in caplog.text


def test_memory_stays_flat_over_epochs():
    """From the second epoch on, memory grows by far less than the images of three epochs."""
    clean = images(500, 64)
    dataset = corruption.CorruptedDataset(clean, 0.5, [image_corruptions.missing_block(0.5)], seed=1)
    iterator, process = batches(BatchSource(dataset, 25, seed=0, flip=True), 0), psutil.Process()
    used = []
    for _ in range(4):
        for _ in range(20):
            next(iterator)
        gc.collect()
        used.append(process.memory_info().rss)
    iterator.close()
    assert max(used[1:]) - used[0] < 3 * clean.nbytes / 2
