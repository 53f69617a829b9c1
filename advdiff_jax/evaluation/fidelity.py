"""Measures the distance of samples to clean images in the features of a network, and the noise left in them."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from advdiff_jax.errors import InvalidArgument

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # as torch-fidelity's
INCEPTION_SPLITS = 10
_DRAWS = 2020  # seed of subsets and splits, torch-fidelity's


class Moments(NamedTuple):
    """What a Frechet distance knows of a set of features.

    Attributes:
        count: number of examples.
        mean: [F] float64.
        covariance: [F, F] float64, with count - 1.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray


def moments(batches: Iterable[np.ndarray]) -> Moments:
    """Computes the moments of features that come in batches [n, F], in float64 and in the memory of one batch.

    Means and scatters are merged as Chan, Golub & LeVeque (1979) do, so that no large sums are subtracted.
    """
    count, mean, scatter = 0, 0.0, 0.0
    for batch in batches:
        x = np.asarray(batch, np.float64)
        own = x.mean(axis=0)
        shift, total = own - mean, count + len(x)
        scatter = scatter + (x - own).T @ (x - own) + np.outer(shift, shift) * (count * len(x) / total)
        mean, count = mean + shift * (len(x) / total), total
    if count < 2:
        raise InvalidArgument(f"a covariance needs two examples or more, got {count}")
    return Moments(count, mean, scatter / (count - 1))


def gaussian_distance(a: Moments, b: Moments) -> float:
    """Computes the squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017).

    The trace of the square root of C_a C_b is the sum of the singular values of R_a^T R_b, for any roots R R^T = C. Units
    that are always 0 make a covariance singular: there a matrix square root of the product (POT's too) can return NaN.
    """
    cross = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    return float(np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes `gaussian_distance` of the moments of features [N, F], [M, F]."""
    return gaussian_distance(moments(_blocks(a)), moments(_blocks(b)))


def _blocks(x, size=4096):
    return (x[start : start + size] for start in range(0, len(x), size))


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))  # rounding makes zeros slightly negative


def frechet_spread(samples: np.ndarray, reference: Moments, resamples: int) -> float:
    """Computes the bootstrap standard error of the Frechet distance: samples [N, F] are drawn again with replacement.

    A bootstrap distance is larger than the distance itself, because a draw repeats examples; its spread is what it is used for.
    """
    rng = np.random.default_rng(_DRAWS)
    draws = (samples[rng.integers(len(samples), size=len(samples))] for _ in range(resamples))
    return float(np.std([gaussian_distance(moments(_blocks(one)), reference) for one in draws], ddof=1))


class Estimate(NamedTuple):
    """A number, and its standard error or, where the field reports that, its deviation over parts."""

    value: float
    std: float


def kernel_distance(
    samples: np.ndarray, reference: np.ndarray, subsets: int = KID_SUBSETS, size: int = KID_SUBSET_SIZE
) -> Estimate:
    """Computes KID (Binkowski et al. 2018): the unbiased squared MMD under the kernel (x.y / F + 1)^3.

    Args:
        samples: features [N, F].
        reference: features [M, F].
        subsets: number of random subsets over which it is averaged.
        size: examples of a subset; fewer if there are not so many.

    Returns:
        mean and standard deviation over the subsets. The subsets are torch-fidelity's, so the number is too.
    """
    rng = np.random.RandomState(_DRAWS)  # not a Generator: the draws of other libraries are to be repeated
    size = min(size, len(samples), len(reference))
    found = []
    for _ in range(subsets):
        x = samples[rng.choice(len(samples), size, replace=False)].astype(np.float64)
        y = reference[rng.choice(len(reference), size, replace=False)].astype(np.float64)
        within = sum(k.sum() - np.trace(k) for k in (_kernel(x, x), _kernel(y, y))) / (size * (size - 1))
        found.append(within - 2.0 * _kernel(x, y).mean())
    return Estimate(float(np.mean(found)), float(np.std(found)))


def _kernel(x, y):
    values = x @ y.T / x.shape[1] + 1.0
    return values * values * values  # a tenth of the time of a power


def inception_score(probabilities: np.ndarray, splits: int = INCEPTION_SPLITS) -> Estimate:
    """Computes exp(E KL(p(y | x) || p(y))) of class probabilities [N, K] (Salimans et al. 2016).

    Returns:
        mean and standard deviation over `splits` parts of the shuffled samples, as torch-fidelity's.
    """
    shuffled = probabilities[np.random.RandomState(_DRAWS).permutation(len(probabilities))].astype(np.float64)
    logs = np.log(np.maximum(shuffled, np.finfo(np.float64).tiny))
    bounds = [len(shuffled) * i // splits for i in range(splits + 1)]
    scores = []
    for first, last in itertools.pairwise(bounds):
        part, marginal = shuffled[first:last], shuffled[first:last].mean(axis=0, keepdims=True)
        log_marginal = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
        scores.append(np.exp(np.mean(np.sum(part * (logs[first:last] - log_marginal), axis=1))))
    return Estimate(float(np.mean(scores)), float(np.std(scores)))


class Coverage(NamedTuple):
    """How samples and reference lie in each other's neighbourhoods.

    Attributes:
        precision, recall: Kynkaanniemi et al. 2019.
        density, coverage: Naeem et al. 2020.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def neighbourhoods(samples: np.ndarray, reference: np.ndarray, nearest_k: int) -> Coverage:
    """Computes precision, recall, density and coverage from balls that reach the k-th nearest neighbour.

    Args:
        samples: features [N, F].
        reference: features [M, F].
        nearest_k: k, without the example itself.

    Returns:
        each with its standard error over examples, the balls fixed.

    Raises:
        InvalidArgument: one of the sets has no k-th neighbour.
    """
    from sklearn.metrics import pairwise_distances_chunked  # a second of every start

    if min(len(samples), len(reference)) <= nearest_k:
        raise InvalidArgument(f"nearest_k={nearest_k} needs more examples than that, got {len(samples)} and {len(reference)}")
    x, y = (one.astype(np.float64) for one in (samples, reference))
    radius_x, radius_y = (_radii(one, nearest_k) for one in (x, y))
    inside, is_recalled, is_covered = [], np.zeros(len(y), bool), np.zeros(len(y), bool)
    start = 0
    for distances in pairwise_distances_chunked(x, y):
        inside.append(np.sum(distances < radius_y, axis=1))
        is_recalled |= np.any(distances < radius_x[start : start + len(distances), None], axis=0)
        is_covered |= np.any(distances < radius_y, axis=0)
        start += len(distances)
    counts = np.concatenate(inside)
    return Coverage(_mean(counts > 0), _mean(is_recalled), _mean(counts / nearest_k), _mean(is_covered))


def _radii(x, k):
    from sklearn.neighbors import NearestNeighbors  # a second of every start

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors()[0][:, -1]


def _mean(values):
    return Estimate(float(np.mean(values)), float(np.std(values) / np.sqrt(len(values))))


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
