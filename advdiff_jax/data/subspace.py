r"""Pictures of a linear subspace, whose truth is known exactly: x = mean + z V, V [k, D] orthonormal (PCA).

The paper's butterflies (arXiv 2505.21742) are such pictures. `project` keeps the pictures' own coefficients z, `gaussian`
draws them from N(0, diag(s^2)) with the pictures' own variances s^2: then even the density is known.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg


class Subspace(NamedTuple):
    """An affine subspace of pictures.

    Attributes:
        mean: [D], D = H W C.
        basis: orthonormal rows, [k, D], by falling variance.
        std: standard deviation of the coefficients, [k].
    """

    mean: np.ndarray
    basis: np.ndarray
    std: np.ndarray

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest points of the subspace to x [N, ...], of the shape of `x`."""
        flat = x.reshape(len(x), -1) - self.mean
        return (self.mean + (flat @ self.basis.T) @ self.basis).reshape(x.shape)


def fit_subspace(x: np.ndarray, components: int) -> Subspace:
    """PCA of pictures [N, ...] to `components` dimensions.

    Raises:
        ValueError: not 1 <= `components` < min(N, D).
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    if not 1 <= components < min(flat.shape):
        raise ValueError(f"components must lie in 1..{min(flat.shape) - 1} for {len(flat)} pictures, got {components}")
    mean = flat.mean(axis=0)
    centred = flat - mean
    # The smaller of the two Gram matrices has the same non-zero spectrum; Lanczos finds its few largest directions.
    wide = flat.shape[1] > len(flat)
    gram = (centred @ centred.T if wide else centred.T @ centred) / len(flat)
    variances, vectors = scipy.sparse.linalg.eigsh(gram, components, v0=np.random.default_rng(0).standard_normal(len(gram)))
    basis = np.linalg.qr(centred.T @ vectors[:, ::-1] if wide else vectors[:, ::-1])[0].T
    std = np.sqrt(np.maximum(variances[::-1], 0.0))
    return Subspace(mean.astype(np.float32), basis.astype(np.float32), std.astype(np.float32))


def projected(x: np.ndarray, subspace: Subspace) -> tuple[np.ndarray, Callable]:
    """(training set, clean): the pictures x [N, ...] projected to the subspace, and draws of them."""
    train = subspace.project(x).astype(np.float32)
    return train, lambda rng, n: train[rng.permutation(len(train))[:n]]


def gaussian(x: np.ndarray, subspace: Subspace, seed: int) -> tuple[np.ndarray, Callable]:
    """(training set, clean): as many Gaussian pictures of the subspace as x has, and fresh draws of the same law."""

    def draw(rng, n):
        z = subspace.std * rng.standard_normal((n, len(subspace.std)), dtype=np.float32)
        return (subspace.mean + z @ subspace.basis).reshape(n, *x.shape[1:])

    return draw(np.random.default_rng(seed), len(x)), draw


def distances(x: np.ndarray, subspace: Subspace) -> dict[str, float]:
    """How far pictures x [N, ...] are from the subspace, in the data's units.

    Returns:
        `subspace_distance`: root mean square of x - project(x) over pictures and coordinates;
        `subspace_psnr`: 10 log10(2^2 / its square) in dB, 2 being the range of [-1, 1].
    """
    square = float(np.mean((x - subspace.project(x)) ** 2, dtype=np.float64))
    square = max(square, float(np.finfo(np.float32).eps) ** 2)  # float32 pictures cannot be nearer
    return {"subspace_distance": square**0.5, "subspace_psnr": float(10.0 * np.log10(4.0 / square))}


def principal_angles(x: np.ndarray, subspace: Subspace) -> np.ndarray:
    """Angles between the subspace and the PCA of x [N, ...] to as many dimensions, degrees, rising: [k] (Bjorck & Golub).

    All 0: x spans the subspace; 90: x leaves out one of its directions altogether.

    Raises:
        ValueError: fewer pictures than dimensions.
    """
    found = fit_subspace(x, len(subspace.basis))
    cosines = np.linalg.svd(subspace.basis.astype(np.float64) @ found.basis.astype(np.float64).T, compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0)))
