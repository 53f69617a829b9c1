"""Measures whether a model repeats its training set."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from advdiff_jax.data.pixels import Examples, to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import figures

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
    from sklearn.neighbors import NearestNeighbors  # a second of every start

    index = NearestNeighbors(n_neighbors=min(3, len(points))).fit(points.reshape(len(points), -1))
    distances, found = index.kneighbors(flat)
    other = np.where(found % len(block) != found[:, :1] % len(block), distances, np.inf).min(axis=1)
    return np.stack([distances[:, 0], other], axis=1)


class Nearest(NamedTuple):
    """The training example that is most similar to each of N examples.

    Attributes:
        similarity: cosine of their features, [N].
        index: of the training example, [N].
        is_mirrored: its mirror image is the similar one, [N].
    """

    similarity: np.ndarray
    index: np.ndarray
    is_mirrored: np.ndarray


def most_similar(
    features: Callable[[np.ndarray], np.ndarray], sets: dict[str, np.ndarray], train: Examples, mirrored: bool = False
) -> dict[str, Nearest]:
    """Finds the most similar training example, in the features of a network; the training set is read once, in blocks.

    Args:
        features: images [n, ...] as floats -> features [n, F].
        sets: name -> images [N, ...], as floats.
        train: the training set as the model saw it, with its corruption, [M, ...].
        mirrored: the model saw mirrored images [H, W, C] too.
    """
    directions = {name: _unit(features(images)) for name, images in sets.items()}
    found = {
        name: Nearest(np.full(len(x), -np.inf, np.float32), np.zeros(len(x), int), np.zeros(len(x), bool))
        for name, x in directions.items()
    }
    for start in range(0, len(train), BLOCK):
        block = to_float(train[np.arange(start, min(start + BLOCK, len(train)))])
        for is_mirror in (False, True) if mirrored else (False,):
            others = _unit(features(block[:, :, ::-1] if is_mirror else block)).T
            for name, x in directions.items():
                _keep_better(found[name], x @ others, start, is_mirror)
    return found


def _unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _keep_better(best, cosines, start, is_mirror):
    """Writes into `best` where a block, from the training example `start` on, has cosines [N, block] above it."""
    at = np.argmax(cosines, axis=1)
    values = np.take_along_axis(cosines, at[:, None], axis=1)[:, 0]
    better = values > best.similarity
    best.similarity[better], best.index[better], best.is_mirrored[better] = values[better], start + at[better], is_mirror


class Bound(NamedTuple):
    """A similarity above which an example counts as a near duplicate.

    Attributes:
        similarity: the `rank`-th largest of the held-out examples.
        rank: k.
        count: number n of held-out examples.
    """

    similarity: float
    rank: int
    count: int

    @property
    def rate(self) -> float:
        """Returns k / (n + 1), the chance that a fresh example of the held-out distribution lies above the bound."""
        return self.rank / (self.count + 1)

    def p_value(self, flagged: int, total: int) -> float:
        """Returns the chance that at least `flagged` of `total` fresh examples lie above the bound.

        Their number is beta-binomial, because the chance given the bound has the distribution Beta(k, n + 1 - k).
        """
        import scipy.stats  # a second of every start

        return float(scipy.stats.betabinom(total, self.rank, self.count + 1 - self.rank).sf(flagged - 1))


def calibrate(held_out: np.ndarray, rate: float) -> Bound:
    """Sets the bound at the largest rate of false positives up to `rate` that the held-out similarities [n] allow.

    With fewer than 1 / rate - 1 held-out examples the bound is their largest similarity, and the rate 1 / (n + 1).
    """
    rank = max(1, int(rate * (len(held_out) + 1) + 1e-9))
    return Bound(float(np.sort(held_out)[-rank]), rank, len(held_out))


def draw_similarities(sets: dict[str, np.ndarray], bound: float | None) -> Figure:
    """Draws histograms of similarities, name -> [N], with the bound as a vertical line if there is one."""
    figure = Figure(figsize=(6.0, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    low = min(float(np.quantile(values, 0.005)) for values in sets.values())
    bins = np.linspace(low, max(float(values.max()) for values in sets.values()) + 1e-6, 51)
    for name, values in sets.items():
        clipped = np.maximum(values, low)
        axes.hist(clipped, bins, weights=np.full(len(values), 1.0 / len(values)), histtype="step", label=name)
    if bound is not None:
        axes.axvline(bound, color="black", linestyle="--", label="bound")
    axes.set(xlabel="similarity to the nearest training example", ylabel="share")
    axes.legend()
    return figure


def draw_pairs(samples: np.ndarray, examples: np.ndarray, titles: list[str], limit: float) -> Figure:
    """Draws pairs, a sample on the left and its training example on the right, both [K, H, W, C], under their titles."""
    columns = 4
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.45 * rows), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, sample, example, title in zip(grid, samples, examples, titles, strict=False):
        figures.show_canvas(axes, figures.tile(np.stack([sample, example])[None], limit))
        axes.set_title(title, fontsize=8)
    return figure
