"""Clean data: a training set, and clean draws for evaluation. A new data set is one function here and one config."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from advdiff_jax.data.pixels import Examples, to_bytes, to_float
from advdiff_jax.data.subspace import Subspace
from advdiff_jax.errors import InvalidArgument


class KnownDistribution(NamedTuple):
    """A distribution of clean data in closed form, which `diffusion.exact` evaluates.

    Attributes:
        kind: a name in `diffusion.exact.DISTRIBUTIONS`.
        parameters: arguments of the function with this name.
    """

    kind: str
    parameters: dict[str, Any]


class Source(NamedTuple):
    """A data set before any corruption.

    Attributes:
        train: clean training examples, [N, ...]: an array of float32, or a data set of uint8 images (see `pixels`);
            images are [N, H, W, C], in [-1, 1] as floats.
        clean: (rng, n) -> n clean examples to compare samples with, [n, ...] float32; new draws if the distribution is known.
        plane: orthonormal basis [2, D] of the plane that holds the points; None for other data.
        subspace: the linear subspace that holds the images; None for other data.
        on_the_fly: True reads and corrupts examples on access, in worker processes if `data.num_workers` sets any; False
            holds them in memory and corrupts them once.
        masks: which pixels of each training example are known, a data set [N, H, W, 1] of bool; None: all.
        draws_examples: clean draws are examples of `train`, as `without_replacement` returns them.
        labels: () -> the class of each training example, [N] integers from 0; for classifiers of an evaluation alone. None:
            the examples have no classes.
    """

    train: Examples
    clean: Callable[[np.random.Generator, int], np.ndarray]
    plane: np.ndarray | None = None
    subspace: Subspace | None = None
    on_the_fly: bool = False
    draws_examples: bool = False
    masks: Examples | None = None
    labels: Callable[[], np.ndarray] | None = None


def without_replacement(examples: Examples) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Builds the clean draws of a source without a known distribution: (rng, n) -> n of its examples, as floats."""
    return lambda rng, n: to_float(examples[rng.permutation(len(examples))[:n]])


def images(examples: Examples) -> Source:
    """Builds a source of uint8 images, read and corrupted on access; clean draws are examples without replacement.

    Args:
        examples: data set [N, H, W, C] of uint8, and perhaps with `masks`.
    """
    masks = getattr(examples, "masks", None)
    return Source(examples, without_replacement(examples), on_the_fly=True, draws_examples=True, masks=masks)


def in_bytes(source: Source) -> Source:
    """Returns a source whose images are stored in 8 bits, clipped to [-1, 1] and rounded, its clean draws too.

    Raises:
        InvalidArgument: the source has points.
    """
    if source.train.dtype == np.uint8:
        return source
    if len(source.train.shape) != 4:
        raise InvalidArgument("storage='uint8' is for images, and the source has points: set source")
    return source._replace(train=to_bytes(source.train), clean=lambda rng, n: to_float(to_bytes(source.clean(rng, n))))


def points(examples: np.ndarray) -> Source:
    """Builds a source of given points; clean draws are examples without replacement.

    Args:
        examples: points [N, D] of float32.
    """
    return Source(examples, without_replacement(examples), draws_examples=True)


# Orthonormal basis of the plane of `plane3d`.
PLANE3D = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])


def plane3d(num_examples: int, seed: int, half_width: float) -> Source:
    """Builds a uniform square [-half_width, half_width]^2 on the plane through 0 with normal (1, 1, 1) / sqrt(3) in R^3.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        half_width: half the side of the square; its standard deviation is half_width / sqrt(3) per axis.

    Raises:
        InvalidArgument: `half_width` is not positive.
    """
    if half_width <= 0.0:
        raise InvalidArgument(f"half_width={half_width} is out of range: set a value in (0, inf)")

    def draw(rng, n):
        return (rng.uniform(-half_width, half_width, (n, 2)) @ PLANE3D).astype(np.float32)

    return Source(draw(np.random.default_rng(seed), num_examples), draw, PLANE3D)


def plane3d_distribution(half_width: float) -> KnownDistribution:
    """Returns the distribution of `plane3d`."""
    return KnownDistribution("uniform_on_plane", {"basis": PLANE3D, "half_width": half_width})


def mixture(
    num_examples: int, seed: int, dim: int, components: int, spread: float, component_std: float, outlier_fraction: float
) -> Source:
    """Builds a mixture of equally weighted isotropic Gaussians in R^dim; only the training set may hold outliers.

    The means are drawn from N(0, spread^2 I) with a separate seed, so the distribution does not change with `seed`.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        dim: dimension of the points.
        components: number of Gaussians.
        spread: standard deviation of their means.
        component_std: standard deviation of each Gaussian.
        outlier_fraction: chance in [0, 1] that a training example is uniform in the cube of half-width 3 spread instead.

    Raises:
        InvalidArgument: `outlier_fraction` outside [0, 1].
    """
    if not 0.0 <= outlier_fraction <= 1.0:
        raise InvalidArgument(f"outlier_fraction={outlier_fraction} is out of range: set a value in [0, 1]")
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
    """Builds independent Gaussians of mean 0 with one standard deviation per coordinate; their gain curve is exact.

    Args:
        num_examples: size of the training set.
        seed: seed of the training set.
        stds: standard deviations, positive, [D].

    Raises:
        InvalidArgument: `stds` is empty or holds a number that is not positive.
    """
    scales = np.asarray(stds, np.float64)
    if scales.size == 0 or np.any(scales <= 0.0):
        raise InvalidArgument(f"stds={scales.tolist()} is out of range: set one or more values in (0, inf)")

    def draw(rng, n):
        return (scales * rng.standard_normal((n, len(scales)))).astype(np.float32)

    return Source(draw(np.random.default_rng(seed), num_examples), draw)


def gaussian_distribution(stds: Sequence[float]) -> KnownDistribution:
    """Returns the distribution of `gaussian`."""
    variances = np.square(np.asarray(stds, np.float64))
    return KnownDistribution("gaussian", {"mean": np.zeros(len(variances)), "covariance": np.diag(variances)})


def mixture_distribution(dim: int, components: int, spread: float, component_std: float) -> KnownDistribution:
    """Returns the distribution of the clean draws of `mixture`."""
    parameters = {
        "weights": np.full(components, 1.0 / components),
        "means": mixture_means(dim, components, spread),
        "covariances": np.tile(component_std**2 * np.eye(dim), (components, 1, 1)),
    }
    return KnownDistribution("mixture", parameters)


def mixture_means(dim: int, components: int, spread: float) -> np.ndarray:
    """Draws the means [components, dim] of the Gaussians of `mixture`."""
    return spread * np.random.default_rng(components * 1000 + dim).standard_normal((components, dim))


def digits() -> Source:
    """Loads the 1,797 handwritten 8x8 digits of scikit-learn, [1797, 8, 8, 1] in [-1, 1]."""
    from sklearn.datasets import load_digits  # imported here: it takes half a second, and other sources do not need it

    images = (load_digits().images[..., None] / 8.0 - 1.0).astype(np.float32)
    return Source(images, without_replacement(images), draws_examples=True, labels=digit_labels)


def digit_labels() -> np.ndarray:
    """Loads the labels 0 to 9 of `digits().train`, [1797]; no training of a model uses them."""
    from sklearn.datasets import load_digits

    return load_digits().target
