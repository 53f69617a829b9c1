"""The gain of a model: how much of each principal direction of its training data its samples keep."""

import numpy as np

SIDE = 32  # of larger pictures, the central square of this side: their covariance would not fit
FLAT = 1e-4  # directions with less than this share of the largest standard deviation have no gain


def gains(train: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of samples over that of the training data, along the training data's principal directions.

    Directions come from one half of the training data and standard deviations from the other: those of the smallest
    directions would otherwise be too small, for being the smallest found.

    Args:
        train: training data, dirty as they are, [N, ...] with N >= 4; pictures [N, H, W, C] are cut to their central SIDE.
        samples: [M, ...], of the same shape.

    Returns:
        standard deviations of the training data, descending, in the data's units, and the gains there, [K] each.

    Raises:
        ValueError: `train` has fewer than 4 examples.
    """
    stds, vectors = _principal(_flat(train))
    sampled = np.std(_flat(samples) @ vectors, axis=0)
    kept = stds > FLAT * stds[0]
    return stds[kept], sampled[kept] / stds[kept]


def noise_level(train: np.ndarray, share: float) -> float:
    """The noise-to-signal ratio u at which the best linear model tells a share q of the noise: what `training.levels` measures.

    q(u) = mean( u^2 / (u^2 + v) ) over the variances v of the principal directions. A network tells more of the noise, so the
    level that it measures is lower.

    Args:
        train: as for `gains`.
        share: q.
    """
    variances = _principal(_flat(train))[0] ** 2
    u2 = np.geomspace(1e-4, 1e3, 701)[:, None] ** 2
    return float(np.sqrt(np.interp(share, np.mean(u2 / (u2 + variances), axis=1), u2[:, 0])))


def _principal(train):
    """Standard deviations, descending, [D], and directions, the columns of [D, D]."""
    if len(train) < 4:
        raise ValueError(f"need 4 examples or more to find directions, got {len(train)}")
    _, vectors = np.linalg.eigh(np.cov(train[::2], rowvar=False).reshape(train.shape[1], -1))
    stds = np.std(train[1::2] @ vectors, axis=0)
    order = np.argsort(stds)[::-1]
    return stds[order], vectors[:, order]


def _flat(x):
    if x.ndim == 4:
        top, left = (max(0, (side - SIDE) // 2) for side in x.shape[1:3])
        x = x[:, top : top + SIDE, left : left + SIDE]
    return x.reshape(len(x), -1).astype(np.float64)
