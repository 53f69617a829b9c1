"""Measures whether a model repeats its training set."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEAR_DUPLICATE = 1 / 3  # ratio of distances below which a sample repeats an example (Yoon et al. 2023; Gu et al. 2023)


def nearest_neighbours(samples: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Computes the ratio of a sample's distances to its nearest and to its second nearest training example.

    Args:
        samples: [N, ...].
        train: the training set as the model saw it, with its corruption, [M, ...] with M >= 2.

    Returns:
        `nn_distance_ratio`: mean of the ratio, near 1 without memorisation, 0 for copies;
        `near_duplicates`: share of samples with a ratio below 1/3.
    """
    index = NearestNeighbors(n_neighbors=2).fit(train.reshape(len(train), -1))
    distances, _ = index.kneighbors(samples.reshape(len(samples), -1))
    ratio = distances[:, 0] / np.maximum(distances[:, 1], np.finfo(np.float64).tiny)
    return {"nn_distance_ratio": float(ratio.mean()), "near_duplicates": float(np.mean(ratio < NEAR_DUPLICATE))}
