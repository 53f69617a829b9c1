"""Restoration without a model, on images whose answer is known; and as a step before training."""

import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.masks import build_mask
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import classical, pixels, sources
from advdiff_jax.errors import UserError
from advdiff_jax.modes import preview
from configs import digits

RAMP = np.linspace(-0.9, 0.8, 16, dtype=np.float32)[:, None, None] + np.zeros((2, 16, 16, 2), np.float32)


def test_gaps_are_filled_from_what_is_left():
    """A ramp is smooth: inpainting finds it again, and the mean of the others does not."""
    masks = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)) > 0.3
    gone = ~np.broadcast_to(masks, RAMP.shape)
    holed = np.where(masks, RAMP, np.float32(0.0))
    by_mean, smooth = (fill(holed, masks) for fill in (classical.mean_fill, classical.inpaint))
    np.testing.assert_allclose(by_mean[0][gone[0]], np.mean(RAMP[0][~gone[0]]), rtol=1e-5)
    np.testing.assert_allclose(smooth[gone], RAMP[gone], atol=0.05)  # least exact at the border
    for filled in (by_mean, smooth):
        np.testing.assert_array_equal(filled[~gone], RAMP[~gone])
        assert filled.dtype == RAMP.dtype
    nothing = np.zeros_like(masks)  # no pixel is left to fill from
    for fill in (classical.mean_fill, classical.inpaint):
        np.testing.assert_array_equal(fill(holed, nothing), holed)


@pytest.mark.parametrize("restore", [classical.nl_means, classical.wavelet])
def test_noise_is_removed_and_an_image_without_noise_stays(restore):
    y = RAMP + 0.1 * np.random.default_rng(0).standard_normal(RAMP.shape).astype(np.float32)
    assert np.std(restore(y) - RAMP) < 0.7 * 0.1
    edge, white = np.where(RAMP < 0.0, np.float32(-1.0), np.float32(1.0)), np.ones_like(RAMP)
    for clean in (white, edge, RAMP):
        np.testing.assert_allclose(restore(clean), clean, atol=0.02)
    one_channel = np.concatenate([y[..., :1], white[..., :1]], axis=-1)  # which is read alone
    assert np.std(restore(one_channel)[..., 0] - RAMP[..., 0]) < 0.8 * 0.1
    np.testing.assert_array_equal(restore(one_channel)[..., 1], 1.0)


def of_digits(by, *corruptions, storage="uint8", fraction=0.5):
    config = digits.get_config("ddpm")
    config.sampling.clip = 0.0
    config.data.update({"corruptions": corruptions, "fraction": fraction, "storage": storage, "restored_by": by})
    return config


@pytest.mark.parametrize("storage", ["uint8", "float"])
def test_each_training_image_is_restored_as_it_is_stored_and_nothing_else_is(storage, caplog):
    caplog.set_level("INFO")
    config, plain = (of_digits(by, "missing_pixels", storage=storage) for by in ("mean_fill", "none"))
    data, before = build_data(config), build_data(plain)
    assert "config.data.restored_by=mean_fill: each of 1,797 images is restored at its first visit" in caplog.text
    mask = build_mask(plain, before.source, before.corrupted)(np.arange(1797))
    wanted = classical.mean_fill(pixels.to_float(before.train), mask)
    found = data.train[np.arange(1797)]
    np.testing.assert_array_equal(found, pixels.as_stored(wanted, before.train.dtype))
    assert np.any(found != before.train)
    np.testing.assert_array_equal(found[~data.is_corrupted], before.train[~data.is_corrupted])
    assert preview.statistics(data) == preview.statistics(before)  # of the corruption alone
    assert "; all are restored by mean_fill before training" in preview.describe(config, data)


def test_an_image_that_is_clean_is_restored_too():
    data = build_data(of_digits("wavelet", "gaussian"))
    clean = np.flatnonzero(~data.is_corrupted)
    assert np.any(data.train[clean] != data.source.train[clean])


@pytest.mark.parametrize(("keep", "visited"), [(True, [3, 5, 7, 4]), (False, [5, 3, 5, 7, 5, 4, 3])])
def test_an_image_is_restored_once_if_it_is_kept(keep, visited):
    images, seen = np.arange(8, dtype=np.uint8)[:, None, None, None], []

    def restore(x, indices):
        seen.extend(indices)
        return -x

    restored = classical.Restored(images, restore, keep)
    for rows in ([5, 3, 5, 7], [5, 4, 3]):
        np.testing.assert_array_equal(restored[np.array(rows)].ravel(), 255 - np.array(rows))
    assert seen == visited
    assert (restored.shape, restored.dtype, len(restored)) == ((8, 1, 1, 1), np.uint8, 8)


def test_a_large_set_is_restored_at_each_visit_and_small_images_are_warned_of(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("advdiff_jax.builders.restored.IN_MEMORY", 1000)
    build_data(of_digits("wavelet", "gaussian"))
    assert "restored at its every visit, because there are too many to keep" in caplog.text
    assert "wavelets hardly read the noise of images below 16 pixels" in caplog.text


def test_a_method_that_is_given_the_std_does_not_get_images_with_another():
    config = of_digits("wavelet", "gaussian")
    config.objective = "ambient_oracle"
    with pytest.raises(UserError, match=r"is given the std of the noise, which config\.data\.restored_by='wavelet' changes"):
        resolve(config)


def test_filling_needs_masks():
    with pytest.raises(UserError, match=r"restored_by=inpaint reads the mask .*, which .* does not have: add missing_pixels"):
        build_data(of_digits("inpaint", "gaussian"))


def test_a_mask_of_the_users_own_is_filled(tmp_path):
    """NaN in an array marks what is not known."""
    images = sources.digits().train[:40].copy()
    images[:, 2:4, 2:4] = np.nan
    np.save(tmp_path / "images.npy", images)
    config = of_digits("mean_fill", fraction=0.0)
    config.data.update({"source": "array", "path": str(tmp_path / "images.npy"), "mask": "nan", "size": 8, "channels": 1})
    config.data.update({"value_range": (-1.0, 1.0), "storage": "float"})
    found = build_data(config).train
    known = np.delete(images.reshape(40, 64), [18, 19, 26, 27], axis=1)
    np.testing.assert_allclose(pixels.to_float(found[np.arange(40)])[:, 2, 2, 0], known.mean(axis=1), atol=0.01)
