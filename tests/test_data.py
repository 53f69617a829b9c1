"""Sources, corruption and batches."""

import numpy as np
import pytest

from advdiff_jax.data import corruption, sources
from advdiff_jax.data.batches import BatchSource, batches


def test_plane3d_is_a_uniform_square_on_its_plane():
    source = sources.plane3d(20_000, seed=0, half_width=1.5)
    np.testing.assert_allclose(source.train @ np.ones(3), 0.0, atol=1e-6)
    np.testing.assert_allclose(source.plane @ source.plane.T, np.eye(2), atol=1e-12)
    on_plane = source.train @ source.plane.T
    assert np.abs(on_plane).max() <= 1.5 + 1e-6
    np.testing.assert_allclose(on_plane.std(axis=0), 1.5 / np.sqrt(3), rtol=0.02)
    np.testing.assert_array_equal(source.train, sources.plane3d(20_000, 0, 1.5).train)
    assert not np.array_equal(source.train[:9], source.clean(np.random.default_rng(1), 9))


def test_mixture_moments_and_outliers():
    kwargs = {"dim": 3, "components": 5, "spread": 1.0, "component_std": 0.05}
    clean = sources.mixture(20_000, 0, outlier_fraction=0.0, **kwargs)
    dirty = sources.mixture(20_000, 0, outlier_fraction=0.2, **kwargs)
    changed = np.any(clean.train != dirty.train, axis=1)
    assert changed.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 20_000))
    np.testing.assert_allclose(dirty.train[changed].std(axis=0), 6.0 / np.sqrt(12), rtol=0.03)
    truth = dirty.clean(np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(truth.mean(axis=0), clean.train.mean(axis=0), atol=0.05)
    other_seed = sources.mixture(20_000, 1, outlier_fraction=0.0, **kwargs).train
    np.testing.assert_allclose(other_seed.mean(axis=0), clean.train.mean(axis=0), atol=0.05)  # the law stays
    with pytest.raises(ValueError, match="outlier_fraction"):
        sources.mixture(10, 0, outlier_fraction=1.1, **kwargs)


def test_digits_are_scikit_learns():
    source = sources.digits()
    assert source.train.shape == (1797, 8, 8, 1)
    assert (source.train.min(), source.train.max()) == (-1.0, 1.0)
    assert len(np.unique(source.clean(np.random.default_rng(0), 1797).reshape(1797, -1), axis=0)) == len(
        np.unique(source.train.reshape(1797, -1), axis=0)
    )
    assert np.bincount(sources.digit_labels()).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_corruption_touches_a_binomial_share_by_noise_of_the_right_size():
    clean = np.zeros((5000, 4), np.float32)
    out, touched = corruption.corrupt(clean, 0.3, [corruption.gaussian(0.2)], seed=0)
    assert touched.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 5000))
    np.testing.assert_array_equal(out[~touched], clean[~touched])
    assert np.all(np.any(out[touched] != 0, axis=1))
    assert out[touched].std() == pytest.approx(0.2, rel=0.03)
    assert out.dtype == np.float32
    assert not clean.any()


def test_corruption_depends_on_seed_and_index_alone():
    clean = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    noise = [corruption.gaussian(0.2)]
    whole = corruption.corrupt(clean, 0.5, noise, seed=3)
    part = corruption.corrupt(clean[10:20], 0.5, noise, seed=3, first_index=10)
    np.testing.assert_array_equal(part.x, whole.x[10:20])
    np.testing.assert_array_equal(part.touched, whole.touched[10:20])
    assert not np.array_equal(corruption.corrupt(clean, 0.5, noise, seed=4).touched, whole.touched)
    # A larger share corrupts a superset, by the same draws.
    more = corruption.corrupt(clean, 0.8, noise, seed=3)
    assert np.all(more.touched[whole.touched])
    np.testing.assert_array_equal(more.x[whole.touched], whole.x[whole.touched])


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_share_outside_0_1_is_refused(fraction):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        corruption.corrupt(np.zeros((2, 2), np.float32), fraction, [], 0)
    with pytest.raises(ValueError, match="negative"):
        corruption.gaussian(-0.1)


EXAMPLES = np.arange(10)


def test_every_epoch_is_a_new_permutation():
    stream = np.concatenate([BatchSource(EXAMPLES, 4, seed=0)[k] for k in range(5)])  # two epochs; one batch straddles them
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))
    assert list(stream[:10]) != list(stream[10:])
    assert list(stream[:10]) != list(BatchSource(EXAMPLES, 10, seed=1)[0])


def test_a_batch_larger_than_the_data_holds_whole_epochs():
    assert np.bincount(BatchSource(EXAMPLES, 30, seed=0)[7]).tolist() == [3] * 10


def test_processes_share_the_batches_of_one():
    whole, shares = BatchSource(EXAMPLES, 4, 0), [BatchSource(EXAMPLES, 4, 0, i, 2) for i in range(2)]
    for k in range(7):
        np.testing.assert_array_equal(np.concatenate([share[k] for share in shares]), whole[k])


@pytest.mark.parametrize("first", [0, 3, 1_000_000])
def test_iteration_starts_anywhere(first):
    source = BatchSource(EXAMPLES, 4, 0)
    iterator = batches(source, first)
    for k in range(first, first + 20):
        np.testing.assert_array_equal(next(iterator), source[k])
    iterator.close()
