"""Measures whether a model repeats its training set."""

import hashlib

import numpy as np
from sklearn.neighbors import NearestNeighbors

from advdiff_jax.errors import InvalidArgument

NEAR_DUPLICATE = 1 / 3  # ratio of distances below which a sample repeats an example (Yoon et al. 2023; Gu et al. 2023)


def nearest_neighbours(samples: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Computes the ratio of a sample's distances to its nearest and to its second nearest distinct training example.

    Equal training examples count once: a copy of an image that the set holds twice is a copy all the same.

    Args:
        samples: [N, ...].
        train: the training set as the model saw it, with its corruption, [M, ...]; two examples at least must differ.

    Returns:
        `nn_distance_ratio`: mean of the ratio, near 1 without memorisation, 0 for copies;
        `near_duplicates`: share of samples with a ratio below 1/3.

    Raises:
        InvalidArgument: all training examples are equal.
    """
    digests = [hashlib.blake2b(example.tobytes(), digest_size=16).digest() for example in train]
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    distinct = train[sorted(first.values())]
    if len(distinct) < 2:
        raise InvalidArgument(f"memorization needs two distinct training examples: the {len(train)} given are equal")
    index = NearestNeighbors(n_neighbors=2).fit(distinct.reshape(len(distinct), -1))
    distances, _ = index.kneighbors(samples.reshape(len(samples), -1))
    ratio = distances[:, 0] / np.maximum(distances[:, 1], np.finfo(np.float64).tiny)
    return {"nn_distance_ratio": float(ratio.mean()), "near_duplicates": float(np.mean(ratio < NEAR_DUPLICATE))}
