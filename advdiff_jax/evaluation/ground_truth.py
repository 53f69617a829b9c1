"""Errors against a law that is known exactly."""

import numpy as np
import ot


def plane(samples: np.ndarray, clean: np.ndarray, basis: np.ndarray) -> dict[str, float]:
    """Distance to the plane, and how much of the spread on it is kept.

    Args:
        samples: [N, D].
        clean: draws of the true law, [M, D].
        basis: orthonormal basis of the plane through 0, [2, D].

    Returns:
        `off_plane_rms`: root mean square distance to the plane, in the data's units;
        `spread_ratio`: on-plane standard deviation over that of `clean`.
    """
    on_plane = samples @ basis.T
    off_plane = samples - on_plane @ basis
    spread = np.sqrt(np.sum(np.var(on_plane, axis=0)) / np.sum(np.var(clean @ basis.T, axis=0)))
    return {"off_plane_rms": float(np.sqrt(np.mean(np.sum(off_plane**2, axis=1)))), "spread_ratio": float(spread)}


def wasserstein2(a: np.ndarray, b: np.ndarray) -> float:
    """Exact 2-Wasserstein distance of two equally weighted point sets [N, D] and [M, D] (POT's network simplex)."""
    cost = ot.dist(a.astype(np.float64), b.astype(np.float64))
    return float(np.sqrt(ot.emd2([], [], cost, numItermax=10_000_000)))
