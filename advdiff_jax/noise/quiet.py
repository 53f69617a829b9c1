r"""Reads the noise of an example in the directions that the data set itself hardly excites.

White noise of std s adds s^2 to the variance in every direction, so the principal directions of a noisy set are those of the
clean one, and its quiet directions hold the noise and little else (Pyatykh et al. 2013, on patches of one image; here on those
of all images). Images of 16 pixels and more are read by the quietest direction of 2x2 patches: the diagonal detail of grey
images, a difference of colours where the channels are alike. A low quantile over positions looks at the smooth ones. Smaller
examples, and points, are read whole, in the quietest 15 % of their directions.

`whiteness` compares with directions that are a little less quiet: noise is as strong there, content is not. Values at the
limits of a file, black and white, hold half of the noise or none; `planted` finds out what that does to the reading.
"""

from typing import NamedTuple

import numpy as np
import scipy.special

from advdiff_jax.data.pixels import Examples, evenly_spaced_indices, to_float

SMALLEST = 16  # pixels: shorter side of images that are read by patches
PATCH, WIDER = 2, 3  # sides of the patches of the reading, and of those of the comparison
COMPARED = 3  # place of the less quiet direction among those of the wider patches, the quietest being 0
QUANTILE = 0.25  # of the magnitudes over positions
QUIET = 0.15  # share of the directions of a whole example
TINY = 5  # quiet directions: with fewer, an example alone has no level
FITTED = 2000  # images, evenly spaced, whose patches have their principal directions taken
FITTED_WHOLE = 10_000  # of each half of whole examples
BLOCK = 256  # examples read at once


class Filters(NamedTuple):
    """Linear filters, and the means of their responses.

    Attributes:
        weights: [K, h, w, C] for patches, [K, D] for whole examples.
        means: [K].
    """

    weights: np.ndarray
    means: np.ndarray


class Bank(NamedTuple):
    """What is read of an example.

    Attributes:
        reading: of the level.
        quiet, louder: the two that `whiteness` compares.
    """

    reading: Filters
    quiet: Filters
    louder: Filters


class QuietFilters(NamedTuple):
    """The filters of a data set.

    Attributes:
        even: found in the examples with even index, or in all.
        odd: found in the others, or the same. The quietest of many directions are quiet by chance too, in the examples that
            chose them: a whole example is read in directions that it did not choose.
    """

    even: Bank
    odd: Bank

    @property
    def relative_error(self) -> float:
        """Sampling error of a level of white noise, over the level; for patches the independent positions are unknown."""
        weights = self.even.reading.weights
        return float(1.0 / np.sqrt(2.0 * len(weights))) if weights.ndim == 2 else 0.1


class Reading(NamedTuple):
    """What the filters say of examples.

    Attributes:
        level: std of the noise, in the data's units, content included, [N].
        whiteness: log of the level in the louder directions over that in the quiet ones, [N]; 0 for white noise.
    """

    level: np.ndarray
    whiteness: np.ndarray


def are_patches(shape: tuple[int, ...]) -> bool:
    """Says whether examples of this shape are images that are read by patches."""
    return len(shape) == 3 and min(shape[:2]) >= SMALLEST


def is_tiny(shape: tuple[int, ...]) -> bool:
    """Says whether examples of this shape have too few numbers for a level of their own."""
    return not are_patches(shape) and _count(int(np.prod(shape))) < TINY


def fit(examples: Examples) -> QuietFilters:
    """Finds the quiet directions of a data set [N, ...]."""
    indices = evenly_spaced_indices(len(examples), FITTED)
    if are_patches(examples.shape[1:]):
        x = to_float(examples[indices])
        of_patches = _patch_directions(x, WIDER)
        bank = Bank(_patch_directions(x, PATCH)(0, 1), of_patches(0, 1), of_patches(COMPARED, COMPARED + 1))
        return QuietFilters(bank, bank)
    return fit_whole(examples, np.arange(len(examples)))


def fit_whole(examples: Examples, among: np.ndarray) -> QuietFilters:
    """Finds the quiet directions of whole examples, in those `among` the data set alone, [n] indices; both parities occur."""
    halves = (among[among % 2 == parity] for parity in (0, 1))
    return QuietFilters(
        *(_whole_directions(to_float(examples[half[evenly_spaced_indices(len(half), FITTED_WHOLE)]])) for half in halves)
    )


def _whole_directions(x):
    x = x.reshape(len(x), -1).astype(np.float64)
    mean, count = x.mean(0), _count(x.shape[1])
    directions = np.linalg.eigh(np.cov((x - mean).T).reshape(x.shape[1], -1))[1].T  # rows, quietest first
    quiet, louder = (Filters(rows, rows @ mean) for rows in (directions[:count], directions[count : 2 * count]))
    return Bank(quiet, quiet, louder)


def _count(dimension):
    """Returns the number of quiet directions of a whole example."""
    return max(1, round(QUIET * dimension))


def _patch_directions(x, side):
    patches = _patches(x, side)
    shape, places = patches.shape[3:], patches.shape[:3]
    # All patches of large images would take 27 times the images' memory.
    chosen = np.arange(0, np.prod(places), max(1, np.prod(places) // 400_000))
    flat = patches[np.unravel_index(chosen, places)].reshape(len(chosen), -1).astype(np.float64)
    mean = flat.mean(0)
    directions = np.linalg.eigh(np.cov((flat - mean).T))[1].T
    return lambda first, last: Filters(directions[first:last].reshape(-1, *shape), directions[first:last] @ mean)


def _patches(x, side):
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))  # [N, h, w, C, side, side]


def read(filters: QuietFilters, x: np.ndarray, indices: np.ndarray) -> Reading:
    """Reads examples [n, ...], as stored, at their indices [n] in the data set."""
    x, is_even = to_float(x), np.asarray(indices) % 2 == 0
    of_odd = _read(filters.even, x)
    if filters.odd is filters.even:
        return of_odd
    return Reading(*(np.where(is_even, a, b) for a, b in zip(_read(filters.odd, x), of_odd, strict=True)))


def _read(bank, x):
    quiet, louder = (np.maximum(_level(one, x), 1e-6) for one in (bank.quiet, bank.louder))
    return Reading(_level(bank.reading, x), np.log(louder / quiet))


def _level(filters, x):
    if filters.weights.ndim == 2:
        responses = x.reshape(len(x), -1) @ filters.weights.T - filters.means
        return np.sqrt(np.mean(responses**2, axis=1))
    responses = np.tensordot(_patches(x, filters.weights.shape[-1]), filters.weights, axes=((3, 4, 5), (1, 2, 3)))
    magnitudes = np.abs(responses - filters.means).reshape(len(x), -1)
    return np.quantile(magnitudes, QUANTILE, axis=1) / scipy.special.ndtri(0.5 + 0.5 * QUANTILE)
