r"""Finds what does not belong in an image: the image is noised to t and denoised, and the residual of a pixel is its score.

The residual is the image less the mean of J restorations, as a root mean square over channels. On Gaussian data of standard
deviation S, with the exact denoiser in one step, it is N(0, (1 - a)^2 S^2 + a^2 u^2 / J) in each pixel, a = S^2 / (S^2 + u^2).
A pixel of another standard deviation P has P in place of S. Two centred Gaussians of standard deviations v and w are told apart
by their magnitudes with the area (2 / pi) arctan(w / v) under the ROC curve.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from advdiff_jax.data.pixels import Examples, evenly_spaced, to_float
from advdiff_jax.errors import InvalidArgument

FITTED = 5000  # training examples of which the principal components are taken
HOTTEST = 99.5  # percentile of a heat map that is drawn white


def residual(x: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Returns the score of each pixel, [N, H, W]: |x - the mean of its restorations|, RMS over channels.

    Args:
        x: images, [N, H, W, C].
        restored: J restorations of each, [J, N, H, W, C].
    """
    return np.sqrt(np.mean((x - restored.mean(axis=0)) ** 2, axis=-1))


def areas(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Computes how well a score finds planted pixels.

    Args:
        truth: which pixels are planted, [N, H, W] bool; some images have none.
        score: of each pixel, [N, H, W].

    Returns:
        `auroc` and `auprc` over pixels, and `image_auroc`, of the largest score of an image, where some images have none.

    Raises:
        InvalidArgument: no pixel is planted, or all are.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second of every start

    flat = truth.ravel()
    if flat.all() or not flat.any():
        raise InvalidArgument("patch_side plants no pixel, or all: set a value between, such as 0.25")
    found = {"auroc": roc_auc_score(flat, score.ravel()), "auprc": average_precision_score(flat, score.ravel())}
    images = truth.any(axis=(1, 2))
    if not images.all():
        found["image_auroc"] = roc_auc_score(images, score.max(axis=(1, 2)))
    return {name: float(value) for name, value in found.items()}


def principal_components(examples: Examples, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits `count` principal components to a data set; returns images [N, H, W, C] -> their projections.

    Raises:
        InvalidArgument: more components than examples or values.
    """
    from sklearn.decomposition import PCA  # a second of every start

    train = evenly_spaced(examples, FITTED)
    train = train.reshape(len(train), -1)
    if count > min(train.shape):
        raise InvalidArgument(f"components={count} exceeds {min(train.shape)}, the examples or their values: lower it")
    fitted = PCA(count, random_state=0).fit(train)
    return lambda x: fitted.inverse_transform(fitted.transform(x.reshape(len(x), -1))).reshape(x.shape)


def planted(clean: np.ndarray, others: Examples, mask: Callable, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Plants a patch of another data set in every second image.

    Args:
        clean: images, [N, H, W, C] floats.
        others: images of the same shape, a data set.
        mask: (rng, shape) -> pixels that stay, [H, W, 1] bool.
        seed: of places and patches.

    Returns:
        images [N, H, W, C], and which pixels are planted [N, H, W].
    """
    x, truth = clean.copy(), np.zeros(clean.shape[:3], bool)
    rng = np.random.default_rng([seed, 0x616E6F6D])  # separates this stream from others of the seed
    for i in range(0, len(clean), 2):
        other = to_float(others[np.array([rng.integers(len(others))])])[0]
        stays = mask(rng, clean[i].shape)
        x[i], truth[i] = np.where(stays, clean[i], other), ~stays[..., 0]
    return x, truth


def draw(rows: dict[str, np.ndarray]) -> Figure:
    """Draws images [K, H, W, C] in [-1, 1] and heat maps [K, H, W], row by row under their names.

    A heat map is white at its own HOTTEST percentile.
    """
    count = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.0 * count + 1.2, 1.05 * len(rows)), dpi=100, layout="constrained")
    for axes_row, (name, images) in zip(figure.subplots(len(rows), count, squeeze=False), rows.items(), strict=True):
        hottest = float(np.percentile(images, HOTTEST)) if images.ndim == 3 else 1.0
        for axes, image in zip(axes_row, images, strict=True):
            if images.ndim == 3:
                axes.imshow(image, cmap="inferno", vmin=0.0, vmax=max(hottest, 1e-6), interpolation="nearest")
            else:
                shown = np.clip(image / 2.0 + 0.5, 0.0, 1.0)
                axes.imshow(
                    shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
                )
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
