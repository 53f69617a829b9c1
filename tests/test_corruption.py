"""Corruption: who is touched, by what, and that nothing else is; statistics against the laws they are drawn from."""

import numpy as np
import pytest

from advdiff_jax.data import corruption, picture_corruptions, wire

GREY = np.full((16, 16, 3), 0.25, np.float32)


def bytes_of(count, seed=0, size=16):
    return np.random.default_rng(seed).integers(60, 196, (count, size, size, 3), dtype=np.uint8)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.0])
def test_fraction_is_binomial_and_the_untouched_are_bit_equal(fraction):
    clean = bytes_of(2000, size=4)
    dirty = corruption.corrupt(clean, fraction, [corruption.gaussian(0.2)], seed=3)
    # Five standard deviations of a binomial: wrong once in two million.
    assert abs(dirty.touched.mean() - fraction) <= 5 * np.sqrt(fraction * (1 - fraction) / 2000)
    np.testing.assert_array_equal(dirty.x[~dirty.touched], clean[~dirty.touched])
    np.testing.assert_array_equal(np.any(dirty.x != clean, axis=(1, 2, 3)), dirty.touched)
    assert dirty.x.dtype == np.uint8


def test_noise_has_its_variance_on_floats_and_on_bytes():
    floats = np.zeros((1000, 8, 8, 1), np.float32)
    noise = corruption.corrupt(floats, 1.0, [corruption.gaussian(0.2)], seed=0).x
    assert noise.std() == pytest.approx(0.2, rel=0.01)  # 64,000 draws: 0.3 % is one standard deviation
    assert np.abs(noise.mean()) < 4 * 0.2 / np.sqrt(noise.size)
    clean = bytes_of(200)
    dirty = corruption.corrupt(clean, 1.0, [corruption.gaussian(0.1)], seed=0).x
    change = wire.to_float(dirty) - wire.to_float(clean)
    # Rounding to grey values adds the variance of a uniform error of 2/255.
    assert change.std() == pytest.approx(np.sqrt(0.1**2 + (2 / 255) ** 2 / 12), rel=0.01)


def test_floats_are_not_clipped_and_bytes_are():
    noise = [corruption.gaussian(2.0)]
    assert np.abs(corruption.corrupt(np.zeros((50, 9), np.float32), 1.0, noise, 0).x).max() > 3.0
    dirty = corruption.corrupt(bytes_of(50), 1.0, noise, 0).x
    assert np.mean((dirty == 0) | (dirty == 255)) == pytest.approx(0.62, abs=0.05)  # P(|N(0, 2^2)| > 1) = 0.617


def test_noise_range_draws_one_std_an_example():
    clean = np.zeros((2000, 400), np.float32)
    std = corruption.corrupt(clean, 1.0, [corruption.gaussian_range(0.1, 0.3)], seed=0).x.std(axis=1)
    assert 0.08 < std.min() < 0.11
    assert 0.29 < std.max() < 0.34
    assert std.mean() == pytest.approx(0.2, abs=0.01)
    assert std.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.1)


def test_same_in_any_order_and_from_any_start():
    clean = bytes_of(100)
    chain = [corruption.gaussian(0.2), picture_corruptions.missing_block(0.5)]
    whole = corruption.Dirty(clean, 0.7, chain, seed=5)
    order = rng().permutation(100)
    np.testing.assert_array_equal(whole[order], corruption.corrupt(clean, 0.7, chain, seed=5).x[order])
    np.testing.assert_array_equal(
        corruption.Dirty(clean[60:], 0.7, chain, 5, first_index=60)[np.arange(40)], whole[60 + np.arange(40)]
    )
    assert not np.array_equal(corruption.Dirty(clean, 0.7, chain, seed=6)[order], whole[order])


def test_chance_of_one_kind():
    half = corruption.occasionally(0.25, corruption.uniform_outlier())
    dirty = corruption.corrupt(np.full((2000, 4), 0.5, np.float32), 1.0, [half], seed=0).x
    assert np.mean(np.any(dirty != 0.5, axis=1)) == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 2000))


def test_uniform_outliers_are_uniform():
    x = corruption.uniform_outlier()(rng(), np.zeros((100, 100, 3), np.float32))
    np.testing.assert_allclose(np.histogram(x, 10, (-1, 1))[0] / x.size, 0.1, atol=0.01)


def test_foreign_outliers_come_from_the_other_set_evenly():
    others = np.stack([np.full((2, 2, 1), value, np.uint8) for value in (10, 100, 200)])
    dirty = corruption.corrupt(np.zeros((900, 2, 2, 1), np.uint8), 1.0, [corruption.foreign_outlier(others)], 0).x
    values, counts = np.unique(dirty[:, 0, 0, 0], return_counts=True)
    assert values.tolist() == [10, 100, 200]
    assert counts.min() > 220


def test_poison_takes_the_example_of_the_same_index():
    clean, poisoned = bytes_of(20, 0), bytes_of(20, 1)
    np.testing.assert_array_equal(corruption.corrupt(clean, 1.0, [corruption.poison(poisoned)], 0).x, poisoned)


def test_salt_and_pepper():
    x = picture_corruptions.salt_and_pepper(0.2)(rng(), np.tile(GREY, (8, 8, 1)))
    assert np.mean(x[..., 0] == 1.0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(x[..., 0] == -1.0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(x[..., 0] == 0.25) == pytest.approx(0.8, abs=0.02)
    assert np.all(x == x[..., :1])  # whole pixels


def test_missing_pixels_and_block():
    gone = picture_corruptions.missing_pixels(0.3)(rng(), np.tile(GREY, (8, 8, 1))) == 0.0
    assert gone[..., 0].mean() == pytest.approx(0.3, abs=0.02)
    corners = set()
    for seed in range(200):
        gone = picture_corruptions.missing_block(0.5)(np.random.default_rng(seed), GREY)[..., 0] == 0.0
        rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
        assert gone.sum() == 64
        assert (np.ptp(rows), np.ptp(columns)) == (7, 7)
        corners.add((rows[0], columns[0]))
    assert {row for row, _ in corners} == set(range(9)) == {column for _, column in corners}
    assert np.all(GREY == 0.25)  # the example itself is left alone


def test_blur_keeps_the_mean_and_has_its_width():
    x = np.zeros((41, 41, 1), np.float32)
    x[20, 20] = 1.0
    blurred = picture_corruptions.blur(2.0)(rng(), x)[..., 0]
    assert blurred.sum() == pytest.approx(1.0, rel=1e-4)
    offsets = np.arange(41) - 20
    assert np.sum(blurred.sum(axis=0) * offsets**2) == pytest.approx(4.0, rel=0.01)
    assert blurred.dtype == np.float32


def test_jpeg_loses_more_at_lower_quality_and_takes_grey():
    x = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    errors = [np.mean((picture_corruptions.jpeg(quality)(rng(), x) - x) ** 2) for quality in (5, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    np.testing.assert_allclose(picture_corruptions.jpeg(95)(rng(), GREY), GREY, atol=0.02)
    assert picture_corruptions.jpeg(10)(rng(), GREY[..., :1]).shape == (16, 16, 1)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: corruption.gaussian(-1.0),
        lambda: corruption.gaussian_range(0.3, 0.1),
        lambda: corruption.occasionally(1.5, corruption.uniform_outlier()),
        lambda: corruption.Dirty(GREY, 1.1, [], 0),
        lambda: picture_corruptions.salt_and_pepper(-0.1),
        lambda: picture_corruptions.missing_block(2.0),
        lambda: picture_corruptions.blur(-1.0),
        lambda: picture_corruptions.jpeg(0),
    ],
)
def test_values_out_of_range_are_refused(factory):
    with pytest.raises(ValueError, match=r"\d"):
        factory()


def test_statistics_tell_what_was_done():
    clean = wire.to_float(bytes_of(1000))
    dirty = corruption.corrupt(clean, 0.6, [corruption.gaussian(0.3)], seed=0)
    numbers = corruption.statistics(clean, *dirty)
    assert numbers["corrupted_fraction"] == dirty.touched.mean()
    assert numbers["untouched_changed"] == 0
    assert numbers["change_rms"] == pytest.approx(0.3, rel=0.01)
    assert numbers["change_rms_min"] < 0.3 < numbers["change_rms_max"]
    changed = dirty.x.copy()
    changed[np.flatnonzero(~dirty.touched)[0]] += 0.1
    assert corruption.statistics(clean, changed, dirty.touched)["untouched_changed"] == 1
    assert corruption.statistics(clean, clean, np.zeros(1000, bool))["change_rms"] == 0.0


def test_bytes_and_floats_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    assert wire.to_float(values)[[0, 255]].tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(wire.to_bytes(wire.to_float(values)), values)
    np.testing.assert_array_equal(wire.to_bytes(np.array([-9.0, 9.0])), [0, 255])
    floats = np.ones(3, np.float32)
    assert wire.to_float(floats) is floats


@pytest.mark.parametrize("chance", [1.0, 0.5])
def test_an_oracle_is_told_the_noise_of_each_example(chance):
    """The draws are replayed: the noise is that which is in the example, whatever is asked for and in which order."""
    clean = np.zeros((400, 2500), np.float32)
    chain = [corruption.occasionally(chance, corruption.gaussian_range(0.1, 0.3))]
    dirty = corruption.Dirty(clean, 0.7, chain, seed=5)
    told = dirty.noise_std(np.arange(400), corruption.occasional_std(chance, corruption.gaussian_range_std(0.1, 0.3)))
    # 2,500 draws: 1.4 % is one standard deviation.
    np.testing.assert_allclose(dirty[np.arange(400)].std(axis=1), told, rtol=0.07)
    assert np.mean(told > 0.0) == pytest.approx(0.7 * chance, abs=0.12)
    part = np.array([17, 3])
    np.testing.assert_array_equal(dirty.noise_std(part, corruption.gaussian_std(0.2)) > 0.0, dirty.look(part).touched)
