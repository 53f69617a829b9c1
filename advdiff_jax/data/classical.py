"""Restoration without a model: what a user would try first. Mostly scikit-image; images are [N, H, W, C] in [-1, 1]."""

import warnings
from collections.abc import Callable

import numpy as np

from advdiff_jax.data.pixels import Examples, as_stored, to_float

SMALLEST = 16  # pixels: shorter side of the images that wavelets read well
NOTHING = 1e-4  # std of noise that is none; non-local means divide by it


def _of_channel(x):
    """The standard deviation of the noise in one channel [H, W], by wavelets; 0 where it has no detail at all."""
    from skimage.restoration import estimate_sigma  # a second of every start

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mean over no coefficient
        return np.nan_to_num(estimate_sigma(x)) if np.ptp(x) else 0.0


def by_wavelets(images: np.ndarray) -> np.ndarray:
    """Estimates the standard deviation of the noise in images by wavelets: [N]; the mean over channels that vary."""
    found = np.array([[_of_channel(one[..., i]) for i in range(one.shape[-1])] for one in images])
    varying = np.array([np.ptp(one, axis=(0, 1)) > 0.0 for one in images])
    return np.sum(found * varying, axis=1) / np.maximum(1, np.sum(varying, axis=1))


def nl_means(y: np.ndarray) -> np.ndarray:
    """Applies non-local means, at the noise level that wavelets estimate in each image; one without noise stays as it is.

    The filter strength is 0.8 times that level, scikit-image's advice for its fast mode.
    """
    from skimage.restoration import denoise_nl_means  # a second of every start

    settings = {"patch_size": 5, "patch_distance": 6, "channel_axis": -1}

    def restored(x, std):
        # It drops the axis of a single channel.
        return denoise_nl_means(x, h=0.8 * std, sigma=std, **settings).reshape(x.shape) if std > NOTHING else x

    return np.stack([restored(x, std) for x, std in zip(y, by_wavelets(y), strict=True)]).astype(y.dtype)


def wavelet(y: np.ndarray) -> np.ndarray:
    """Shrinks wavelet coefficients (BayesShrink), at the noise level that wavelets estimate in each channel of an image.

    A channel without noise stays as it is: the threshold of BayesShrink is not defined there.
    """
    from skimage.restoration import denoise_wavelet  # a second of every start

    def shrunk(x):
        std = _of_channel(x)
        return denoise_wavelet(x, sigma=std, method="BayesShrink", mode="soft", rescale_sigma=True) if std > NOTHING else x

    return np.stack([np.stack([shrunk(x[..., i]) for i in range(x.shape[-1])], axis=-1) for x in y]).astype(y.dtype)


def wiener(y: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Deconvolves by a Wiener filter that finds its own regularisation (Orieux et al. 2010); the border wraps around."""
    from skimage.restoration import unsupervised_wiener

    def channel(x):
        found, _ = unsupervised_wiener(x, kernel, clip=False, rng=0)
        return found

    return np.stack([np.stack([channel(x[..., i]) for i in range(x.shape[-1])], -1) for x in y]).astype(y.dtype)


def mean_fill(y: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Gives the pixels where the masks [N, H, W, 1] of bool are False the mean of the others, in each channel.

    An image of which nothing is known stays as it is.
    """

    def filled(x, known):
        return np.where(known, x, np.mean(x, axis=(0, 1), where=known)) if known.any() else x

    return np.stack([filled(x, known) for x, known in zip(y, masks, strict=True)])


def inpaint(y: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Fills the pixels where the masks [N, H, W, 1] of bool are False by a biharmonic surface through the others.

    An image of which nothing is known stays as it is.
    """
    from skimage.restoration import inpaint_biharmonic

    def filled(x, known):
        return inpaint_biharmonic(x, ~known, channel_axis=-1).astype(x.dtype) if known.any() and not known.all() else x

    return np.stack([filled(x, known) for x, known in zip(y, masks[..., 0], strict=True)])


class Restored:
    """A data set (see `pixels`) of images that are restored when they are first read, and stored as before.

    Args:
        examples: images as they came, [N, H, W, C].
        restore: (images [n, H, W, C] of floats, their indices [n]) -> images.
        keep: restored images stay in memory; else each visit restores them again.
    """

    def __init__(self, examples: Examples, restore: Callable[[np.ndarray, np.ndarray], np.ndarray], keep: bool):
        self._examples, self._restore = examples, restore
        self.shape, self.dtype = examples.shape, examples.dtype
        self._kept = np.empty(self.shape, self.dtype) if keep else None
        self._is_kept = np.zeros(len(examples), bool)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._kept is None:
            return self._restored(indices)
        if len(new := np.unique(indices[~self._is_kept[indices]])):
            self._kept[new] = self._restored(new)
            self._is_kept[new] = True  # last: other threads read what is marked
        return self._kept[indices]

    def _restored(self, indices):
        return as_stored(self._restore(to_float(self._examples[indices]), indices), self.dtype)
