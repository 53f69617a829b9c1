"""Measures the noise of every example of a data set, given nothing but the data."""

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from advdiff_jax.data.pixels import Examples, evenly_spaced_indices, to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.noise import groups, planted, quiet

FEWEST = 50  # clean examples that serve as carriers of planted noise
CARRIERS = 500
REFITS = 10  # of the surface of points, at most
NEAR = 3.0  # median distances of points from their surface, within which they count as on it
IDENTIFIED = 64  # examples by which a data set is known again
ROUNDING = 2.0 / 255.0  # a level that files of 8 bits have by rounding and by flat areas; of floats: a share of their spread
ROUNDING_OF_FLOATS = 0.005


class NoiseLevels(NamedTuple):
    """The noise of each of N examples.

    Attributes:
        std: standard deviation of the noise in the data's units, drawn towards the common level by as much as the error says,
            [N]; of a clean example what is read there, content included. Infinite: the example teaches nothing, and its dirt
            is no noise.
        error: relative error of a reading, [].
        is_clean: [N].
        reading: of each example alone, calibrated, [N].
        whiteness: see `quiet.Reading`, [N].
        words: the verdict in one line.
        uncertainty: relative standard deviation of such a std, [].
        step: of the run whose model read them too; 0: the data alone were read, or another model read them.
        evaluations: of that model's network.
        data: `identity` of the examples; "": not known, as in a file of one's own.
    """

    std: np.ndarray
    error: float
    is_clean: np.ndarray
    reading: np.ndarray
    whiteness: np.ndarray
    words: str
    uncertainty: float = 0.0
    step: int = 0
    evaluations: int = 0
    data: str = ""

    def used(self) -> np.ndarray:
        """Returns the levels as training takes them: 0 in clean examples, [N] float32."""
        return np.where(self.is_clean, 0.0, self.std).astype(np.float32)

    def of_noisy(self) -> np.ndarray:
        """Returns the levels of the examples with noise, [n]."""
        return self.std[~self.is_clean & np.isfinite(self.std)]


Reader = Callable[[np.ndarray], np.ndarray]  # examples as stored [n, ...] -> readings that grow with their noise [n, R]


class Readings(NamedTuple):
    """Further readings of a data set, beside those of the quiet directions.

    Attributes:
        of_examples: [N, R].
        read: takes them of other examples, in which noise is planted.
    """

    of_examples: np.ndarray
    read: Reader


def measure(examples: Examples, seed: int = 0, further: Readings | None = None) -> NoiseLevels:
    """Measures the noise of each example.

    Args:
        examples: a data set [N, ...] of uint8 images, or of floats; read block by block.
        seed: of the planted noise.
        further: readings that are combined with the first by their errors on planted noise, once clean examples are found to
            plant it in; the groups are then split again.

    Raises:
        InvalidArgument: the examples hold numbers that are not finite.
    """
    _check_finite(examples)
    filters, least, is_tiny = quiet.fit(examples), _least(examples), quiet.is_tiny(examples.shape[1:])
    level, whiteness, limits = _read_all(filters, examples)
    verdict = groups.split(quiet.Reading(level, whiteness), least, filters.relative_error, is_tiny)
    if is_tiny:
        filters, level, whiteness, verdict = _on_the_surface(examples, filters, level, whiteness, verdict, least)
    levels, error = _calibrated(examples, further, level, limits, verdict.is_clean, filters, seed)
    if further and 0 < np.sum(verdict.is_clean) < len(levels):
        again = groups.split(quiet.Reading(levels, whiteness), least, filters.relative_error, is_tiny)
        verdict = again if 0 < np.sum(again.is_clean) < len(levels) else verdict
    std, uncertainty = shrunk(levels, error, verdict.is_clean)
    return NoiseLevels(std, error, verdict.is_clean, levels, whiteness, verdict.words, uncertainty, data=identity(examples))


def identity(examples: Examples) -> str:
    """Returns a hash of evenly spaced examples [N, ...] as they are stored, dirt included, and of their shape."""
    digest = hashlib.sha256(str((examples.shape, np.dtype(examples.dtype).name)).encode())
    digest.update(np.ascontiguousarray(examples[evenly_spaced_indices(len(examples), IDENTIFIED)]))
    return digest.hexdigest()


def _on_the_surface(examples, filters, level, whiteness, verdict, least):
    """Fits the surface again to the points that lie on it, until the same points do.

    Noise tilts the quietest direction of all points a little. Clean points far from the middle then seem to leave the surface,
    and those that are found are not spread as the clean ones are. How near the points lie to their own surface says what counts
    as on it: the nearer, the fewer noisy points are there by chance.
    """
    for _ in range(REFITS):
        clean = np.flatnonzero(verdict.is_clean)
        if len(clean) == len(level) or min(np.sum(clean % 2 == parity) for parity in (0, 1)) < FEWEST:
            break
        refitted = quiet.fit_whole(examples, clean)
        again_level, again_whiteness, _ = _read_all(refitted, examples)
        least = min(least, NEAR * float(np.median(again_level[clean])))
        again = groups.split(quiet.Reading(again_level, again_whiteness), least, refitted.relative_error, is_tiny=True)
        if again.is_clean.all():  # no surface is found any more
            break
        is_same = np.array_equal(again.is_clean, verdict.is_clean)
        filters, level, whiteness, verdict = refitted, again_level, again_whiteness, again
        if is_same:
            break
    return filters, level, whiteness, verdict


def _read_all(filters, examples):
    """Returns levels, whiteness and shares at the limits of all examples, [N] each."""
    rows = [_read_block(filters, examples[block], block) for block in _blocks(len(examples))]
    return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))


def _check_finite(examples):
    if np.issubdtype(examples.dtype, np.floating):
        axes = tuple(range(1, len(examples.shape)))
        bad = sum(int(np.sum(~np.all(np.isfinite(examples[block]), axis=axes))) for block in _blocks(len(examples)))
        if bad:
            raise InvalidArgument(f"{bad:,} of {len(examples):,} examples hold numbers that are not finite: remove them")


def _blocks(count):
    return [np.arange(i, min(i + quiet.BLOCK, count)) for i in range(0, count, quiet.BLOCK)]


def _read_block(filters, x, indices):
    """Returns the levels [n], the whiteness [n] and the share of values at the limits [n]."""
    own = quiet.read(filters, x, indices)
    return own.level, own.whiteness, planted.at_limits(x)


def _least(examples):
    if examples.dtype == np.uint8:
        return ROUNDING
    return ROUNDING_OF_FLOATS * float(np.std(examples[evenly_spaced_indices(len(examples), CARRIERS)]))


def _calibrated(examples, further, own, limits, is_clean, filters, seed):
    """Returns the calibrated levels [N] and their relative error."""
    clean = np.flatnonzero(is_clean)
    if quiet.is_tiny(examples.shape[1:]):
        level = np.sqrt(np.mean(own[~is_clean] ** 2)) if not is_clean.all() else 0.0
        return np.where(is_clean, own, level), float(1.0 / np.sqrt(2.0 * max(1, np.sum(~is_clean))))
    if len(clean) >= FEWEST:
        carriers = to_float(examples[clean[evenly_spaced_indices(len(clean), CARRIERS)]])
    elif quiet.are_patches(examples.shape[1:]):
        # Smoothed carriers hold no content that another reading could mistake for noise, so the least mistaken stands alone.
        further = None
        carriers = planted.smoothed(to_float(examples[evenly_spaced_indices(len(examples), CARRIERS)]))
    else:
        return own, filters.relative_error

    def read(images):
        level = np.concatenate([_read_block(filters, images[block], block)[0] for block in _blocks(len(images))])
        return np.stack([level, *(further.read(images).T if further else ())], axis=1)

    scale = float(np.std(carriers)) if carriers.ndim == 2 else 1.0  # points have units of their own
    calibration = planted.calibrate(read, carriers, examples.dtype, seed, scale)
    readings = np.stack([own, *(further.of_examples.T if further else ())], axis=1)
    return planted.apply(calibration, readings, limits), calibration.error


def shrunk(levels: np.ndarray, error: float, is_clean: np.ndarray) -> tuple[np.ndarray, float]:
    """Draws the levels [N] of noisy examples towards their mean by as much as the error explains of their spread.

    One level for all, read with an error, is one level again (an empirical-Bayes estimate in the logarithm). Returns the levels
    and their relative standard deviation.
    """
    if np.sum(~is_clean) < groups.FEWEST:
        return levels, error
    logs = np.log(levels[~is_clean])
    middle, spread = np.median(logs), (np.quantile(logs, 0.84) - np.quantile(logs, 0.16)) / 2.0
    kept = max(0.0, 1.0 - (error / spread) ** 2) if spread > 0.0 else 0.0
    drawn = levels.copy()
    drawn[~is_clean] = np.exp(middle + kept * (logs - middle))
    return drawn, float(error * np.sqrt(kept))


def save(path: pathlib.Path, levels: NoiseLevels) -> None:
    """Writes noise.npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.savez_compressed(file, **levels._asdict())
    partial.replace(path)


def load(path: pathlib.Path) -> NoiseLevels:
    """Reads what `save` wrote; raises InvalidArgument for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            later = NoiseLevels._field_defaults  # a file of an earlier version has fewer
            found = {name: file[name] for name in NoiseLevels._fields if name in file or name not in later}
        kinds = {"error": float, "words": str, "uncertainty": float, "step": int, "evaluations": int, "data": str}
        found |= {name: kind(found[name]) for name, kind in kinds.items() if name in found}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidArgument(f"{path} is no file of --mode=noise ({error}): write it again") from error
    levels = NoiseLevels(**found)._replace(is_clean=np.asarray(found["is_clean"]).astype(bool))
    if not levels.std.shape == levels.is_clean.shape == levels.reading.shape == levels.whiteness.shape == (levels.std.size,):
        raise InvalidArgument(f"{path}: std, is_clean, reading and whiteness must have one number for each example")
    return levels
