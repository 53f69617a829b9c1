"""Measures the gain of a model: the share of each principal direction of its training data that its samples keep."""

import numpy as np

from advdiff_jax.errors import InvalidArgument

SIDE = 32  # larger images are cropped to a central square of this side: their covariance would not fit in memory
FLAT = 1e-4  # directions with less than this share of the largest standard deviation have no gain


def gains(train: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the samples' standard deviation over the training data's, along the latter's principal directions.

    One half of the training data gives the directions, the other half their standard deviations. On the same half, the
    smallest would be biased low, because the directions are chosen to minimise them.

    Args:
        train: training data with their corruption, [N, ...] with N >= 4; see SIDE for images [N, H, W, C].
        samples: [M, ...], of the same shape.

    Returns:
        standard deviations of the training data, descending, in the data's units, and the gains there, [K] each.

    Raises:
        InvalidArgument: `train` has fewer than 4 examples.
    """
    stds, vectors = _principal(_flat(train))
    sampled = np.std(_flat(samples) @ vectors, axis=0)
    kept = stds > FLAT * stds[0]
    return stds[kept], sampled[kept] / stds[kept]


def noise_level(train: np.ndarray, share: float) -> float:
    """Computes the noise-to-signal ratio u at which the best linear model explains a share q of the noise variance.

    q(u) = mean( u^2 / (u^2 + v) ) over the variances v of the principal directions. `training.noise_floor` measures the same
    level of a network, which explains more of the noise, so that its level is lower.

    Args:
        train: as for `gains`.
        share: q.
    """
    variances = _principal(_flat(train))[0] ** 2
    u2 = np.geomspace(1e-4, 1e3, 701)[:, None] ** 2
    return float(np.sqrt(np.interp(share, np.mean(u2 / (u2 + variances), axis=1), u2[:, 0])))


def _principal(train):
    """Computes the standard deviations, descending, [D], and the directions, the columns of [D, D]."""
    if len(train) < 4:
        raise InvalidArgument(f"need 4 examples or more to find directions, got {len(train)}")
    _, vectors = np.linalg.eigh(np.cov(train[::2], rowvar=False).reshape(train.shape[1], -1))
    stds = np.std(train[1::2] @ vectors, axis=0)
    order = np.argsort(stds)[::-1]
    return stds[order], vectors[:, order]


def _flat(x):
    if x.ndim == 4:
        top, left = (max(0, (side - SIDE) // 2) for side in x.shape[1:3])
        x = x[:, top : top + SIDE, left : left + SIDE]
    return x.reshape(len(x), -1).astype(np.float64)
