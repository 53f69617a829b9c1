r"""Images in a linear subspace, a known ground truth: x = mean + z V, V [k, D] orthonormal (PCA).

The paper's butterflies (arXiv 2505.21742) are such images. `projected` keeps the images' own coefficients z; `gaussian`
draws z from N(0, diag(s^2)) with the images' own variances s^2, so that the density is known too.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg

from advdiff_jax.errors import InvalidArgument


class Subspace(NamedTuple):
    """An affine subspace of images.

    Attributes:
        mean: [D], D = H W C.
        basis: orthonormal rows, [k, D], in order of decreasing variance.
        std: standard deviation of the coefficients, [k].
    """

    mean: np.ndarray
    basis: np.ndarray
    std: np.ndarray

    def project(self, x: np.ndarray) -> np.ndarray:
        """Projects x [N, ...] orthogonally to the subspace; returns the shape of `x`."""
        flat = x.reshape(len(x), -1) - self.mean
        return (self.mean + (flat @ self.basis.T) @ self.basis).reshape(x.shape)


def fit_subspace(x: np.ndarray, subspace_dim: int) -> Subspace:
    """Computes the PCA of images [N, ...] to `subspace_dim` dimensions.

    Raises:
        InvalidArgument: 1 <= `subspace_dim` < min(N, D) does not hold.
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    if not 1 <= subspace_dim < min(flat.shape):
        raise InvalidArgument(
            f"subspace_dim={subspace_dim} is out of range for {len(flat)} images of {flat.shape[1]} values: "
            f"set a value in [1, {min(flat.shape) - 1}]"
        )
    mean = flat.mean(axis=0)
    centred = flat - mean
    # Both Gram matrices have the same non-zero spectrum: take the smaller; Lanczos finds its few largest directions.
    wide = flat.shape[1] > len(flat)
    gram = (centred @ centred.T if wide else centred.T @ centred) / len(flat)
    variances, vectors = scipy.sparse.linalg.eigsh(gram, subspace_dim, v0=np.random.default_rng(0).standard_normal(len(gram)))
    basis = np.linalg.qr(centred.T @ vectors[:, ::-1] if wide else vectors[:, ::-1])[0].T
    std = np.sqrt(np.maximum(variances[::-1], 0.0))
    return Subspace(mean.astype(np.float32), basis.astype(np.float32), std.astype(np.float32))


def projected(x: np.ndarray, subspace: Subspace) -> tuple[np.ndarray, Callable]:
    """Returns (training set, clean): the images x [N, ...] projected to the subspace, and draws without replacement."""
    train = subspace.project(x).astype(np.float32)
    return train, lambda rng, n: train[rng.permutation(len(train))[:n]]


def gaussian(x: np.ndarray, subspace: Subspace, seed: int) -> tuple[np.ndarray, Callable]:
    """Returns (training set, clean): Gaussian images in the subspace, as many as x [N, ...] has, and new draws of them."""

    def draw(rng, n):
        z = subspace.std * rng.standard_normal((n, len(subspace.std)), dtype=np.float32)
        return (subspace.mean + z @ subspace.basis).reshape(n, *x.shape[1:])

    return draw(np.random.default_rng(seed), len(x)), draw


def distances(x: np.ndarray, subspace: Subspace) -> dict[str, float]:
    """Measures the distance of images x [N, ...] from the subspace, in the data's units.

    Returns:
        `subspace_distance`: root mean square of x - project(x) over images and coordinates;
        `subspace_psnr`: 10 log10(2^2 / subspace_distance^2) in dB; 2 is the width of [-1, 1].
    """
    square = float(np.mean((x - subspace.project(x)) ** 2, dtype=np.float64))
    square = max(square, float(np.finfo(np.float32).eps) ** 2)  # the resolution of float32 images
    return {"subspace_distance": square**0.5, "subspace_psnr": float(10.0 * np.log10(4.0 / square))}


def principal_angles(x: np.ndarray, subspace: Subspace) -> np.ndarray:
    """Computes the principal angles [k] between the subspace and the k-dimensional PCA of x [N, ...] (Bjorck & Golub).

    Angles are in degrees, in increasing order. All are 0 if x spans the subspace; one is 90 if x misses a direction.

    Raises:
        InvalidArgument: x has no more images than the subspace has dimensions.
    """
    found = fit_subspace(x, len(subspace.basis))
    cosines = np.linalg.svd(subspace.basis.astype(np.float64) @ found.basis.astype(np.float64).T, compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0)))
