"""Restoration without a model, by scikit-image: what a user would try first. Images are [N, H, W, C] in [-1, 1]."""

import numpy as np

from advdiff_jax.data.image_corruptions import inpainted
from advdiff_jax.evaluation.denoising import nl_means

__all__ = ["inpaint", "nl_means", "wavelet", "wiener"]


def wavelet(y: np.ndarray) -> np.ndarray:
    """Shrinks wavelet coefficients (BayesShrink), at the noise level that `estimate_sigma` finds in each image."""
    from skimage.restoration import denoise_wavelet  # a second of every start

    settings = {"method": "BayesShrink", "mode": "soft", "rescale_sigma": True, "channel_axis": -1}
    return np.stack([denoise_wavelet(x, **settings).reshape(x.shape) for x in y]).astype(y.dtype)


def inpaint(y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills the pixels where the mask [N, H, W, 1] of bool is False by a biharmonic surface through the others."""
    return np.stack([inpainted(x, known) for x, known in zip(y, mask[..., 0], strict=True)])


def wiener(y: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Deconvolves by a Wiener filter that finds its own regularisation (Orieux et al. 2010); the border wraps around."""
    from skimage.restoration import unsupervised_wiener

    def channel(x):
        found, _ = unsupervised_wiener(x, kernel, clip=False, rng=0)
        return found

    return np.stack([np.stack([channel(x[..., i]) for i in range(x.shape[-1])], -1) for x in y]).astype(y.dtype)
