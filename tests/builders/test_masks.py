"""Masks of examples: those of synthetic corruptions are replayed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.given_mask import build_given_mask
from advdiff_jax.builders.masks import build_mask, has_mask
from advdiff_jax.builders.process import build_process
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError
from configs import digits

ALL = np.arange(1797)


def masked(*corruptions, **chance):
    config = digits.get_config("ddpm")
    config.data.update({"fraction": 0.8, "corruptions": corruptions, "noise_std": 0.2})
    config.data.chance.update(chance)
    return config


@pytest.mark.parametrize(
    "config",
    [
        masked("gaussian", "missing_pixels"),
        masked("missing_block", "gaussian_range", "missing_pixels", missing_pixels=0.6, gaussian_range=0.7),
    ],
)
def test_the_mask_of_a_corruption_is_replayed(config):
    """Noise hides no pixel, so the pixels that are 0 after it are the hidden ones; a block before it is under the noise."""
    data = build_data(config)
    mask = build_mask(config, data.source, data.corrupted)(ALL)
    assert (mask.shape, mask.dtype) == ((1797, 8, 8, 1), bool)
    assert mask[~data.is_corrupted].all()
    if config.data.corruptions[0] == "gaussian":
        np.testing.assert_array_equal(data.train[data.is_corrupted] == 0.0, ~mask[data.is_corrupted])
        assert np.mean(mask[data.is_corrupted]) == pytest.approx(0.5, abs=0.01)
    else:
        changed = data.source.train != data.train
        untouched = data.is_corrupted & np.all((data.train == 0.0) | ~changed, axis=(1, 2, 3))  # by noise
        assert untouched.any()
        np.testing.assert_array_equal((changed & mask)[untouched], False)
        hidden_later = mask.mean(axis=(1, 2, 3)) < 0.7  # a block alone hides a quarter
        assert hidden_later[data.is_corrupted].mean() == pytest.approx(0.6, abs=0.05)
        assert np.all(mask.mean(axis=(1, 2, 3))[data.is_corrupted] <= 0.75)


def test_a_batch_has_the_masks_of_its_images_mirrored_with_them():
    config = masked("gaussian", "missing_pixels")
    config.data.fraction = 1.0
    data = build_data(config)
    source = BatchSource(data.train, 64, seed=0, flip=True, mask=build_mask(config, data.source, data.corrupted))
    batch = source[3]
    np.testing.assert_array_equal(batch["examples"] == 0.0, ~batch["mask"])
    assert np.any(batch["mask"] != build_mask(config, data.source, data.corrupted)(source.indices(3)))  # some are mirrored


def test_data_without_masks_and_corruptions_that_mix_pixels_are_refused():
    assert has_mask(masked("gaussian", "missing_block"))
    assert not has_mask(masked("gaussian"))
    config = masked("gaussian")
    with pytest.raises(UserError, match=r"reads the mask .*\('gaussian',\) does not have: add missing_pixels or missing_block"):
        build_mask(config, *build_data(config)[:2])
    config = masked("missing_pixels", "blur")
    with pytest.raises(UserError, match=r"Gaussian noise alone: leave blur out of config\.data\.corruptions"):
        build_mask(config, *build_data(config)[:2])


def test_each_sample_draws_a_mask_of_the_data_and_hides_a_tenth_more():
    """A network that outputs 0 has x0hat = 0 on hidden pixels, and x_t / alpha, its estimate without noise, on the others."""
    config = digits.get_config("ambient_mask")
    halves, process = np.ones((2, 8, 8, 1), bool), build_process(config)
    halves[0, :, :4], halves[1, :, 4:] = False, False
    given = build_given_mask(config, process, (8, 8, 1), halves)
    network = lambda x, t: 0.0 * x[..., :1]
    keys, x, t = jax.random.split(jax.random.key(0), 200), jnp.ones((200, 8, 8, 1)), jnp.full(200, 0.5)
    seen = np.asarray(process.denoiser(given.of_samples(network, keys))(x, t).x0)[..., 0] != 0.0
    left, right = seen[:, :, :4].any(axis=(1, 2)), seen[:, :, 4:].any(axis=(1, 2))
    assert np.all(left != right)  # each has one of the two masks
    assert np.mean(left) == pytest.approx(0.5, abs=0.1)
    assert np.mean(seen) == pytest.approx(0.9 / 2.0, abs=0.01)
    one = np.asarray(process.denoiser(given.fixed(network))(x, t).x0)
    np.testing.assert_array_equal(one, np.tile(one[:1], (200, 1, 1, 1)))  # metrics see one function
    state, time = given.inputs(jnp.concatenate([2.0 * x, x], axis=-1), t)
    np.testing.assert_array_equal(state[..., 1:], x)
    assert (given.channels, state.shape, time.shape) == (1, (200, 8, 8, 2), (200,))
