"""Measures whether a model repeats its training set."""

import hashlib

import numpy as np
from sklearn.neighbors import NearestNeighbors

from advdiff_jax.data.pixels import Examples, to_float
from advdiff_jax.errors import InvalidArgument

NEAR_DUPLICATE = 1 / 3  # ratio of distances below which a sample repeats an example (Yoon et al. 2023; Gu et al. 2023)
BLOCK = 4096  # training examples in memory at once


def nearest_neighbours(samples: np.ndarray, train: Examples, mirrored: bool = False) -> dict[str, float]:
    """Computes the ratio of a sample's distances to its nearest and to its second nearest distinct training example.

    Equal training examples count once: a copy of an image that the set holds twice is a copy all the same. The whole set is
    read, because a tenth of it would hold the originals of a tenth of the copies.

    Args:
        samples: [N, ...].
        train: the training set as the model saw it, with its corruption, [M, ...]; two examples at least must differ.
        mirrored: the model saw mirrored images [H, W, C] too: an example and its mirror image count as one.

    Returns:
        `nn_distance_ratio`: mean of the ratio, near 1 without memorisation, 0 for copies;
        `near_duplicates`: share of samples with a ratio below 1/3.

    Raises:
        InvalidArgument: all training examples are equal.
    """
    flat, seen = samples.reshape(len(samples), -1), set()
    nearest = np.full((len(samples), 2), np.inf)
    for start in range(0, len(train), BLOCK):
        block = train[np.arange(start, min(start + BLOCK, len(train)))]
        block = to_float(block[_unseen(block, seen, mirrored)])
        if len(block):
            nearest = np.sort(np.concatenate([nearest, _two_nearest(flat, block, mirrored)], axis=1), axis=1)[:, :2]
    if len(seen) < 2:
        raise InvalidArgument(f"memorization needs two distinct training examples: the {len(train)} given are equal")
    ratio = nearest[:, 0] / np.maximum(nearest[:, 1], np.finfo(np.float64).tiny)
    return {"nn_distance_ratio": float(ratio.mean()), "near_duplicates": float(np.mean(ratio < NEAR_DUPLICATE))}


def _unseen(block, seen, mirrored):
    """Returns the rows whose examples are not in `seen`, and adds them to it."""
    rows = []
    for row, example in enumerate(block):
        versions = [example, example[:, ::-1]] if mirrored else [example]
        digest = min(hashlib.blake2b(version.tobytes(), digest_size=16).digest() for version in versions)
        if digest not in seen:
            seen.add(digest)
            rows.append(row)
    return rows


def _two_nearest(flat, block, mirrored):
    """Returns the distances [N, 2] to the two nearest examples of a block, infinite where it has one."""
    points = np.concatenate([block, block[:, :, ::-1]]) if mirrored else block
    # Of three points at most two are versions of one example.
    index = NearestNeighbors(n_neighbors=min(3, len(points))).fit(points.reshape(len(points), -1))
    distances, found = index.kneighbors(flat)
    other = np.where(found % len(block) != found[:, :1] % len(block), distances, np.inf).min(axis=1)
    return np.stack([distances[:, 0], other], axis=1)
