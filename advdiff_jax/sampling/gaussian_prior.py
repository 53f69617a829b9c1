r"""A Gaussian fitted by EM to y = A x + s n, with a mask A and a noise std s of each example, and draws from its posterior.

    E-step:  m_i = m + K_i (y_i - A_i m),   C_i = (1 - K_i A_i) S,   K_i = S A_i^T (A_i S A_i^T + s_i^2 I)^-1
    M-step:  m = mean m_i,   S = mean [ C_i + (m_i - m) (m_i - m)^T ]

With one s and no masks the eigenvalues tend to max(those of Cov[y] - s^2, 0). With x from the prior, x + K (y - A x - s n) is a
draw from p(x | y) (Matheron's rule). In NumPy, float64.
"""

from typing import NamedTuple

import numpy as np

from advdiff_jax.errors import InvalidArgument

FITTED = 2000  # masked examples of a fit, evenly spaced: each costs the solution of a system of its own
LARGEST = 256  # dimensions of masked examples
BLOCK = 256  # masked examples whose systems are solved at once
LEAST_STD = 1e-3


class Gaussian(NamedTuple):
    """N(mean [D], covariance [D, D])."""

    mean: np.ndarray
    covariance: np.ndarray


def fit(y: np.ndarray, std: np.ndarray, steps: int, mask: np.ndarray | None = None) -> Gaussian:
    """Fits a Gaussian, from the mean and covariance of y on.

    Args:
        y: examples, [N, D].
        std: of the noise of each, [N].
        steps: laps of EM.
        mask: True where a coordinate is seen, [N, D]; None: all are.

    Raises:
        InvalidArgument: masked examples have more than `LARGEST` dimensions.
    """
    std = np.maximum(std, LEAST_STD)
    if mask is not None:
        if y.shape[1] > LARGEST:
            raise InvalidArgument(
                f"start='gaussian' fits masked examples of at most {LARGEST} dimensions, and these have {y.shape[1]}: set "
                "start='dirty'"
            )
        rows = np.arange(len(y)) if len(y) <= FITTED else np.arange(FITTED) * len(y) // FITTED
        y, std, mask = y[rows], std[rows], mask[rows]
    y = y.astype(np.float64)
    model = Gaussian(y.mean(0), np.cov(y.T, bias=True).reshape(y.shape[1], -1))
    for _ in range(steps):
        means, within = _moments(model, y, std, mask)
        mean = means.mean(0)
        model = Gaussian(mean, within + (means - mean).T @ (means - mean) / len(y))
    return model


def draw(rng: np.random.Generator, model: Gaussian, y: np.ndarray, std: np.ndarray, mask: np.ndarray | None = None):
    """Draws x ~ p(x | y) for each example, [N, D] float32; arguments as for `fit`."""
    std = np.maximum(std, LEAST_STD)
    values, vectors = np.linalg.eigh(model.covariance)
    prior = model.mean + (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(y.shape)) @ vectors.T
    residual = y - prior - std[:, None] * rng.standard_normal(y.shape)
    return (prior + _gained(model, residual, std, mask)).astype(np.float32)


def _moments(model, y, std, mask):
    """Returns the posterior means [N, D], and the mean of the posterior covariances [D, D]."""
    means = model.mean + _gained(model, y - model.mean, std, mask)
    if mask is None:
        values, vectors = np.linalg.eigh(model.covariance)
        values = np.maximum(values, 0.0)
        levels, counts = np.unique(std, return_counts=True)
        left = sum(n / len(std) * values * s**2 / (values + s**2) for s, n in zip(levels, counts, strict=True))
        return means, (vectors * left) @ vectors.T
    explained = np.zeros_like(model.covariance)
    for block in _blocks(len(y)):
        gains = _gains(model, std[block], mask[block])
        explained += np.einsum("nij,jk->ik", gains * mask[block][:, None], model.covariance)
    within = model.covariance - explained / len(y)
    return means, 0.5 * (within + within.T)


def _gained(model, residual, std, mask):
    """Returns K_i A_i residual_i, [N, D]."""
    if mask is None:
        values, vectors = np.linalg.eigh(model.covariance)
        values = np.maximum(values, 0.0)
        return (residual @ vectors * values / (values + std[:, None] ** 2)) @ vectors.T
    parts = [np.einsum("nij,nj->ni", _gains(model, std[b], mask[b]), mask[b] * residual[b]) for b in _blocks(len(residual))]
    return np.concatenate(parts)


def _gains(model, std, mask):
    """Returns S A^T (A S A^T + s^2 I)^-1 of a block, [n, D, D]; the columns of hidden coordinates do not matter."""
    seen = mask.astype(np.float64)
    systems = seen[:, :, None] * model.covariance * seen[:, None, :] + (std**2)[:, None, None] * np.eye(len(model.mean))
    return np.linalg.solve(systems, seen[:, :, None] * model.covariance).transpose(0, 2, 1)


def _blocks(count):
    return [slice(i, i + BLOCK) for i in range(0, count, BLOCK)]
