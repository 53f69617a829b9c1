"""Measures the distance of samples to clean images, and the noise left in them."""

import numpy as np

from advdiff_jax.errors import InvalidArgument


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the squared 2-Wasserstein distance of Gaussians fitted to features [N, F], [M, F] (Heusel et al. 2017).

    The trace of the square root of C_a C_b is the sum of the singular values of R_a^T R_b, for any roots R R^T = C. Units
    that are always 0 make a covariance singular: there a matrix square root of the product (POT's too) can return NaN.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    cross = np.linalg.svd(_root(covariances[0]).T @ _root(covariances[1]), compute_uv=False).sum()
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + sum(np.trace(c) for c in covariances) - 2.0 * cross)


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))  # rounding makes zeros slightly negative


def noise_energy(sets: dict[str, np.ndarray], clean: np.ndarray, directions: int) -> dict[str, float]:
    """Computes the RMS of each set in the directions of the clean data's smallest variance, in the data's units.

    Examples that choose the directions look quieter there than others of their distribution, so no set may hold them.

    Args:
        sets: name -> examples, [N, ...].
        clean: clean data, [M, ...], which give the mean and the principal directions.
        directions: number of directions, those of smallest variance.

    Raises:
        InvalidArgument: not 1 <= `directions` <= dimension.
    """
    flat = clean.reshape(len(clean), -1).astype(np.float64)
    if not 1 <= directions <= flat.shape[1]:
        raise InvalidArgument(f"need 1 to {flat.shape[1]} directions, got {directions}")
    mean = flat.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))  # ascending
    quiet = {name: (x.reshape(len(x), -1) - mean) @ vectors[:, :directions] for name, x in sets.items()}
    return {name: float(np.sqrt(np.mean(x**2))) for name, x in quiet.items()}
