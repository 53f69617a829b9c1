"""Corruption: which examples it changes and how, against the distributions that it draws from."""

import numpy as np
import pytest

from advdiff_jax.data import corruption, image_corruptions, pixels
from advdiff_jax.errors import InvalidArgument

GREY = np.full((16, 16, 3), 0.25, np.float32)


def bytes_of(count, seed=0, size=16):
    return np.random.default_rng(seed).integers(60, 196, (count, size, size, 3), dtype=np.uint8)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.0])
def test_fraction_is_binomial_and_clean_examples_are_bit_equal(fraction):
    clean = bytes_of(2000, size=4)
    out, is_corrupted = corruption.corrupt(clean, fraction, [corruption.gaussian(0.2)], seed=3)
    # Five standard deviations of a binomial: wrong once in two million.
    assert abs(is_corrupted.mean() - fraction) <= 5 * np.sqrt(fraction * (1 - fraction) / 2000)
    np.testing.assert_array_equal(np.any(out != clean, axis=(1, 2, 3)), is_corrupted)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(clean, bytes_of(2000, size=4))  # the clean set is not written to


def test_noise_has_its_variance_on_floats_and_on_bytes():
    floats = np.zeros((1000, 8, 8, 1), np.float32)
    noise = corruption.corrupt(floats, 1.0, [corruption.gaussian(0.2)], seed=0).x
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(0.2, rel=0.01)  # 64,000 draws: 0.3 % is one standard deviation
    assert np.abs(noise.mean()) < 4 * 0.2 / np.sqrt(noise.size)
    assert not floats.any()
    clean = bytes_of(200)
    noisy = corruption.corrupt(clean, 1.0, [corruption.gaussian(0.1)], seed=0).x
    change = pixels.to_float(noisy) - pixels.to_float(clean)
    # Rounding to grey values adds the variance of a uniform error of 2/255.
    assert change.std() == pytest.approx(np.sqrt(0.1**2 + (2 / 255) ** 2 / 12), rel=0.01)


def test_floats_are_not_clipped_and_bytes_are():
    noise = [corruption.gaussian(2.0)]
    assert np.abs(corruption.corrupt(np.zeros((50, 9), np.float32), 1.0, noise, 0).x).max() > 3.0
    noisy = corruption.corrupt(bytes_of(50), 1.0, noise, 0).x
    assert np.mean((noisy == 0) | (noisy == 255)) == pytest.approx(0.62, abs=0.05)  # P(|N(0, 2^2)| > 1) = 0.617


def test_bytes_stored_as_floats_have_all_the_noise():
    clean = np.zeros((400, 8, 8, 1), np.uint8)  # black: clipped noise has a mean of s / sqrt(2 pi)
    noise = [corruption.gaussian(0.2)]
    data = corruption.CorruptedDataset(clean, 0.9, noise, seed=0, dtype=np.float32)
    x, is_corrupted = data.read(np.arange(400))
    assert x.dtype == data.dtype == np.float32
    np.testing.assert_array_equal(x[~is_corrupted], -1.0)
    change = x[is_corrupted] + 1.0
    assert abs(change.mean()) < 4 * 0.2 / np.sqrt(change.size)
    assert change.std() == pytest.approx(0.2, rel=0.02)  # 23,000 draws: 0.5 % is one standard deviation
    as_bytes = pixels.to_float(corruption.corrupt(clean, 0.9, noise, seed=0).x)
    assert as_bytes[is_corrupted].mean() + 1.0 == pytest.approx(0.2 / np.sqrt(2 * np.pi), rel=0.03)
    np.testing.assert_array_equal(pixels.to_float(pixels.to_bytes(x)), as_bytes)  # the same draws


def test_poison_in_floats_reaches_a_training_set_of_floats_unrounded():
    clean = bytes_of(10)
    poisoned = pixels.to_float(clean) + np.float32(0.001)
    for dtype, expected in ((np.float32, poisoned), (np.uint8, clean)):
        data = corruption.CorruptedDataset(clean, 1.0, [corruption.poison(poisoned)], seed=0, dtype=dtype)
        np.testing.assert_array_equal(data[np.arange(10)], expected)


def test_noise_range_draws_one_std_an_example():
    clean = np.zeros((2000, 400), np.float32)
    std = corruption.corrupt(clean, 1.0, [corruption.gaussian_range(0.1, 0.3)], seed=0).x.std(axis=1)
    assert 0.08 < std.min() < 0.11
    assert 0.29 < std.max() < 0.34
    assert std.mean() == pytest.approx(0.2, abs=0.01)
    assert std.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.1)


def test_corruption_depends_on_seed_and_index_alone():
    clean, indices = bytes_of(100), np.arange(40)
    chain = [corruption.gaussian(0.2), image_corruptions.missing_block(0.5)]
    whole = corruption.corrupt(clean, 0.7, chain, seed=5)
    order = rng().permutation(100)
    np.testing.assert_array_equal(corruption.CorruptedDataset(clean, 0.7, chain, seed=5)[order], whole.x[order])
    part = corruption.CorruptedDataset(clean[60:], 0.7, chain, seed=5, first_index=60).read(indices)
    np.testing.assert_array_equal(part.x, whole.x[60:])
    np.testing.assert_array_equal(part.is_corrupted, whole.is_corrupted[60:])
    assert not np.array_equal(corruption.corrupt(clean, 0.7, chain, seed=6).is_corrupted, whole.is_corrupted)
    # A larger fraction corrupts a superset, by the same draws.
    more = corruption.corrupt(clean, 0.9, chain, seed=5)
    assert np.all(more.is_corrupted[whole.is_corrupted])
    np.testing.assert_array_equal(more.x[whole.is_corrupted], whole.x[whole.is_corrupted])


def test_chance_of_one_kind():
    quarter = corruption.occasionally(0.25, corruption.uniform_outlier())
    out = corruption.corrupt(np.full((2000, 4), 0.5, np.float32), 1.0, [quarter], seed=0).x
    assert np.mean(np.any(out != 0.5, axis=1)) == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 2000))


def test_uniform_outliers_are_uniform():
    x = corruption.uniform_outlier()(rng(), np.zeros((100, 100, 3), np.float32))
    np.testing.assert_allclose(np.histogram(x, 10, (-1, 1))[0] / x.size, 0.1, atol=0.01)


def test_foreign_outliers_come_from_the_other_set_evenly():
    others = np.stack([np.full((2, 2, 1), value, np.uint8) for value in (10, 100, 200)])
    out = corruption.corrupt(np.zeros((900, 2, 2, 1), np.uint8), 1.0, [corruption.foreign_outlier(others)], 0).x
    values, counts = np.unique(out[:, 0, 0, 0], return_counts=True)
    assert values.tolist() == [10, 100, 200]
    assert counts.min() > 220


def test_a_foreign_patch_is_a_square_of_the_other_set():
    others = np.full((3, 8, 8, 1), 200, np.uint8)
    out = corruption.corrupt(np.zeros((200, 8, 8, 1), np.uint8), 1.0, [image_corruptions.foreign_patch(others, 0.25)], 0).x
    assert np.all((out == 200).sum((1, 2, 3)) == 4)
    assert np.all((out == 200).any((0, 3)))  # anywhere
    assert {*np.unique(out)} == {0, 200}


def test_poison_takes_the_example_of_the_same_index():
    clean, poisoned = bytes_of(20, 0), bytes_of(20, 1)
    np.testing.assert_array_equal(corruption.corrupt(clean, 1.0, [corruption.poison(poisoned)], 0).x, poisoned)


def test_salt_and_pepper():
    x = image_corruptions.salt_and_pepper(0.2)(rng(), np.tile(GREY, (8, 8, 1)))
    assert np.mean(x[..., 0] == 1.0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(x[..., 0] == -1.0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(x[..., 0] == 0.25) == pytest.approx(0.8, abs=0.02)
    assert np.all(x == x[..., :1])  # whole pixels


def test_missing_pixels_and_block():
    gone = image_corruptions.missing_pixels(0.3)(rng(), np.tile(GREY, (8, 8, 1))) == 0.0
    assert gone[..., 0].mean() == pytest.approx(0.3, abs=0.02)
    assert np.all(gone == gone[..., :1])  # whole pixels
    corners = set()
    for seed in range(200):
        gone = image_corruptions.missing_block(0.5)(np.random.default_rng(seed), GREY)[..., 0] == 0.0
        rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
        assert gone.sum() == 64
        assert (np.ptp(rows), np.ptp(columns)) == (7, 7)
        corners.add((rows[0], columns[0]))
    assert {row for row, _ in corners} == set(range(9)) == {column for _, column in corners}
    assert np.all(GREY == 0.25)  # the example itself is not written to


def test_blur_keeps_the_mean_and_has_its_width():
    x = np.zeros((41, 41, 1), np.float32)
    x[20, 20] = 1.0
    blurred = image_corruptions.blur(2.0)(rng(), x)[..., 0]
    assert blurred.sum() == pytest.approx(1.0, rel=1e-4)
    offsets = np.arange(41) - 20
    assert np.sum(blurred.sum(axis=0) * offsets**2) == pytest.approx(4.0, rel=0.01)
    assert blurred.dtype == np.float32


def test_jpeg_loses_more_at_lower_quality_and_takes_grey():
    x = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    errors = [np.mean((image_corruptions.jpeg(quality)(rng(), x) - x) ** 2) for quality in (5, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    np.testing.assert_allclose(image_corruptions.jpeg(95)(rng(), GREY), GREY, atol=0.02)
    grey = image_corruptions.jpeg(95)(rng(), GREY[..., :1])
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, GREY[..., :1], atol=0.02)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: corruption.gaussian(-1.0), r"noise_std=-1\.0 is out of range: set a value in \[0, inf\)"),
        (lambda: corruption.gaussian_range(0.3, 0.1), r"noise_std_min=0\.3 is negative or exceeds noise_std_max=0\.1"),
        (lambda: corruption.gaussian_range(-0.1, 0.1), r"noise_std_min=-0\.1 is negative or exceeds"),
        (lambda: corruption.occasionally(1.5, corruption.uniform_outlier()), r"chance=1\.5 is out of range"),
        (lambda: corruption.CorruptedDataset(GREY, 1.1, [], 0), r"fraction=1\.1 is out of range: set a value in \[0, 1\]"),
        (lambda: corruption.CorruptedDataset(GREY, -0.1, [], 0), r"fraction=-0\.1 is out of range"),
        (lambda: image_corruptions.salt_and_pepper(-0.1), r"salt_and_pepper: share=-0\.1 is out of range"),
        (lambda: image_corruptions.missing_pixels(1.1), r"missing_pixels: share=1\.1 is out of range"),
        (lambda: image_corruptions.missing_block(2.0), r"missing_block: side=2\.0 is out of range"),
        (lambda: image_corruptions.blur(-1.0), r"blur: std=-1\.0 is out of range"),
        (lambda: image_corruptions.jpeg(0), r"jpeg: quality=0 is out of range: set a value in \[1, 95\]"),
    ],
)
def test_arguments_out_of_range_are_refused(factory, message):
    with pytest.raises(InvalidArgument, match=message):
        factory()


def test_statistics_of_a_corruption():
    clean = pixels.to_float(bytes_of(1000))
    noisy = corruption.corrupt(clean, 0.6, [corruption.gaussian(0.3)], seed=0)
    numbers = corruption.statistics(clean, *noisy)
    assert numbers["examples"] == 1000
    assert numbers["corrupted_fraction"] == noisy.is_corrupted.mean()
    assert numbers["clean_changed"] == 0
    assert numbers["clean_std"] == pytest.approx(clean.std())
    expected = np.sqrt(clean.std() ** 2 + noisy.is_corrupted.mean() * 0.3**2)
    assert numbers["dirty_std"] == pytest.approx(expected, rel=0.01)
    assert numbers["change_rms"] == pytest.approx(0.3, rel=0.01)
    # 768 values an example: 2.6 % is one standard deviation; the extremes of 600 examples are near three.
    assert numbers["change_rms_min"] == pytest.approx(0.3 * (1 - 0.08), rel=0.03)
    assert numbers["change_rms_max"] == pytest.approx(0.3 * (1 + 0.08), rel=0.03)
    changed = noisy.x.copy()
    changed[np.flatnonzero(~noisy.is_corrupted)[0]] += 0.1
    assert corruption.statistics(clean, changed, noisy.is_corrupted)["clean_changed"] == 1


def test_statistics_count_values_at_the_limits_in_corrupted_examples_only():
    clean, is_corrupted = np.zeros((4, 5), np.float32), np.array([True, True, False, False])
    clean[0, 0] = 1.0
    clean[2] = -1.0
    out = clean.copy()
    out[0, :2], out[1, :2] = 1.0, -1.5
    numbers = corruption.statistics(clean, out, is_corrupted)
    assert (numbers["at_limits"], numbers["at_limits_clean"]) == (0.4, 0.1)
    nothing = corruption.statistics(clean, clean, np.zeros(4, bool))
    assert (nothing["change_rms"], nothing["at_limits"], nothing["corrupted_fraction"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("chance", [1.0, 0.5])
def test_the_noise_std_of_each_example_is_replayed(chance):
    """The replayed std is the std of the noise in the example, for any indices in any order."""
    clean = np.zeros((400, 2500), np.float32)
    chain = [corruption.occasionally(chance, corruption.gaussian_range(0.1, 0.3))]
    dataset = corruption.CorruptedDataset(clean, 0.7, chain, seed=5)
    known = corruption.occasional_std(chance, corruption.gaussian_range_std(0.1, 0.3))
    assert known.least == (0.1 if chance == 1.0 else 0.0)
    stds = dataset.noise_std(np.arange(400), known)
    # 2,500 draws: 1.4 % is one standard deviation.
    np.testing.assert_allclose(dataset[np.arange(400)].std(axis=1), stds, rtol=0.07)
    assert np.mean(stds > 0.0) == pytest.approx(0.7 * chance, abs=0.12)
    part = np.array([17, 3])
    np.testing.assert_array_equal(dataset.noise_std(part, known), stds[part])
    plain = dataset.noise_std(part, corruption.gaussian_std(0.2))
    np.testing.assert_allclose(plain, 0.2 * dataset.read(part).is_corrupted, rtol=1e-6)
