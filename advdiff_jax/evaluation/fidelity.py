"""How close samples are to clean pictures, and how much noise is left in them."""

import numpy as np
import ot


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of the Gaussians fitted to two feature sets [N, F], [M, F] (Heusel et al. 2017).

    POT's Bures-Wasserstein distance, which agrees with pytorch-fid to seven digits.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(ot.gaussian.bures_wasserstein_distance(a.mean(0), b.mean(0), *covariances) ** 2)


def noise_energy(samples: np.ndarray, clean: np.ndarray, directions: int) -> float:
    """Root mean square of samples in the directions of the clean data's smallest variance, in the data's units.

    Args:
        samples: [N, ...].
        clean: clean data, [M, ...]; directions and mean are theirs.
        directions: how many principal directions, the smallest.

    Raises:
        ValueError: not 1 <= `directions` <= dimension.
    """
    flat = clean.reshape(len(clean), -1).astype(np.float64)
    if not 1 <= directions <= flat.shape[1]:
        raise ValueError(f"need 1 to {flat.shape[1]} directions, got {directions}")
    mean = flat.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))  # ascending
    quiet = (samples.reshape(len(samples), -1) - mean) @ vectors[:, :directions]
    return float(np.sqrt(np.mean(quiet**2)))
