"""Clean data: a training set and, for evaluation, the clean truth. A new data set is one function here and one config."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from advdiff_jax.data.subspace import Subspace
from advdiff_jax.data.wire import Examples, to_float


class Source(NamedTuple):
    """A data set before any corruption.

    Attributes:
        train: clean training examples, [N, ...]: an array of float32, or a data set of uint8 pictures (see `wire`);
            pictures are [N, H, W, C], in [-1, 1] as floats.
        clean: (rng, n) -> n clean examples to compare samples with, [n, ...] float32; fresh draws where the law is known.
        plane: for points near a plane, an orthonormal basis [2, D] of it; None elsewhere.
        subspace: for pictures of a linear subspace, that subspace; None elsewhere.
        on_the_fly: whether examples are read and corrupted when they are needed, by worker processes if so configured,
            or held in memory and corrupted once.
    """

    train: Examples
    clean: Callable[[np.random.Generator, int], np.ndarray]
    plane: np.ndarray | None = None
    subspace: Subspace | None = None
    on_the_fly: bool = False


def pictures(examples: Examples) -> Source:
    """A source of uint8 pictures, read and corrupted on the fly; the clean truth is a draw of it without replacement.

    Args:
        examples: a data set [N, H, W, C] of uint8.
    """

    def clean(rng, n):
        return to_float(examples[rng.permutation(len(examples))[:n]])

    return Source(examples, clean, on_the_fly=True)


def plane3d(num_examples: int, seed: int, half_width: float) -> Source:
    """The uniform square [-half_width, half_width]^2 on the plane through 0 with normal (1, 1, 1) / sqrt(3) in R^3.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        half_width: half the side of the square; its standard deviation is half_width / sqrt(3) per axis.

    Raises:
        ValueError: `half_width` is not positive.
    """
    if half_width <= 0.0:
        raise ValueError(f"half_width must be positive, got {half_width}")
    basis = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])

    def draw(rng, n):
        return (rng.uniform(-half_width, half_width, (n, 2)) @ basis).astype(np.float32)

    return Source(draw(np.random.default_rng(seed), num_examples), draw, basis)


def mixture(
    num_examples: int, seed: int, dim: int, components: int, spread: float, component_std: float, outlier_fraction: float
) -> Source:
    """An even mixture of isotropic Gaussians in R^dim; the training set may hold outliers, the truth never does.

    The means are drawn once, from N(0, spread^2 I) with a seed of their own: the law does not change with `seed`.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        dim: dimension of the points.
        components: number of Gaussians.
        spread: standard deviation of their means.
        component_std: standard deviation of each Gaussian.
        outlier_fraction: chance in [0, 1] that a training example is instead uniform in the cube of half-width 3 spread.

    Raises:
        ValueError: `outlier_fraction` outside [0, 1].
    """
    if not 0.0 <= outlier_fraction <= 1.0:
        raise ValueError(f"outlier_fraction must lie in [0, 1], got {outlier_fraction}")
    means = mixture_means(dim, components, spread)

    def draw(rng, n):
        points = means[rng.integers(components, size=n)] + component_std * rng.standard_normal((n, dim))
        return points.astype(np.float32)

    rng = np.random.default_rng(seed)
    train = draw(rng, num_examples)
    outliers = rng.uniform(-3.0 * spread, 3.0 * spread, train.shape).astype(np.float32)
    is_outlier = rng.uniform(size=(num_examples, 1)) < outlier_fraction
    return Source(np.where(is_outlier, outliers, train), draw)


def gaussian(num_examples: int, seed: int, stds: Sequence[float]) -> Source:
    """Independent Gaussians of mean 0, a standard deviation a coordinate: where the transfer curve is exact.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        stds: standard deviations, positive, [D].

    Raises:
        ValueError: no std, or one that is not positive.
    """
    scales = np.asarray(stds, np.float64)
    if scales.size == 0 or np.any(scales <= 0.0):
        raise ValueError(f"stds must be positive, and at least one, got {stds}")

    def draw(rng, n):
        return (scales * rng.standard_normal((n, len(scales)))).astype(np.float32)

    return Source(draw(np.random.default_rng(seed), num_examples), draw)


def mixture_means(dim: int, components: int, spread: float) -> np.ndarray:
    """Means of the Gaussians of `mixture`, [components, dim]."""
    return spread * np.random.default_rng(components * 1000 + dim).standard_normal((components, dim))


def digits() -> Source:
    """The 1,797 handwritten 8x8 digits that ship in scikit-learn, [1797, 8, 8, 1] in [-1, 1]."""
    from sklearn.datasets import load_digits  # half a second to import, and only this source needs it

    pictures = (load_digits().images[..., None] / 8.0 - 1.0).astype(np.float32)

    def clean(rng, n):
        return pictures[rng.permutation(len(pictures))[:n]]

    return Source(pictures, clean)


def digit_labels() -> np.ndarray:
    """Labels 0 to 9 of `digits().train`, [1797]; for the feature network of the evaluation only."""
    from sklearn.datasets import load_digits

    return load_digits().target
