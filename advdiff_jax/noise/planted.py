r"""Calibrates readings of noise by planted noise: what do they say of images whose noise is known?

Noise of known levels is added to carriers, the result is stored as the data are (clipped and rounded in 8-bit files), and read.
A least-squares fit of log(level) on the logarithms of the readings, and on the share of values at black and white, weighs the
readings by their errors and undoes what clipping does: half of Fashion-MNIST is black, and there a reading of 0.13 means 0.2.
The residual is the error bar.

The carriers are the clean examples, once some are known. Before that they are images of the set itself after a median filter
of 5x5 pixels, which takes noise away and leaves black areas black.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage

from advdiff_jax.data.pixels import as_stored

COUNT = 2000  # planted images
LEVELS = (0.02, 0.8)  # std of the planted noise over the scale of the data, even in the logarithm; that of images is 1
FILTER = 5  # pixels
LEAST = 0.01  # below this first reading, which planted noise does not have, a level is in proportion to it


class Calibration(NamedTuple):
    """A fit of log(level).

    Attributes:
        coefficients: of `_design`.
        error: std of its residual: the relative error of a level.
        scale: of the data: readings and levels are in its units.
    """

    coefficients: np.ndarray
    error: float
    scale: float = 1.0


def smoothed(images: np.ndarray) -> np.ndarray:
    """Takes the noise out of images [N, H, W, C] by a median filter."""
    return scipy.ndimage.median_filter(images, size=(1, FILTER, FILTER, 1))


def plant(rng: np.random.Generator, carriers: np.ndarray, dtype: np.dtype, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns `COUNT` noisy copies of carriers [n, ...] as a data set of this dtype holds them, and their levels [COUNT]."""
    x = carriers[np.resize(np.arange(len(carriers)), COUNT)]
    levels = scale * np.exp(rng.uniform(*np.log(LEVELS), COUNT))
    noise = levels.reshape(-1, *[1] * (x.ndim - 1)) * rng.standard_normal(x.shape)
    return as_stored((x + noise).astype(np.float32), dtype), levels


def at_limits(examples: np.ndarray) -> np.ndarray:
    """Returns the share of values at black or white in each example [N, ...] of 8 bits; 0 for floats, which have no limits."""
    if examples.dtype != np.uint8:
        return np.zeros(len(examples))
    return np.mean((examples == 0) | (examples == 255), axis=tuple(range(1, examples.ndim)))


def fit(readings: np.ndarray, limits: np.ndarray, levels: np.ndarray, scale: float = 1.0) -> Calibration:
    """Fits the levels [n] of planted noise to readings [n, R] and shares at the limits [n]."""
    design, wanted = _design(readings / scale, limits), np.log(levels / scale)
    coefficients = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return Calibration(coefficients, float(np.std(design @ coefficients - wanted)), scale)


def apply(calibration: Calibration, readings: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Returns the calibrated levels [n] of readings [n, R] with shares at the limits [n]."""
    readings = readings / calibration.scale
    levels = np.minimum(readings[:, 0] / LEAST, 1.0) * np.exp(_design(readings, limits) @ calibration.coefficients)
    return calibration.scale * levels


def _design(readings, limits):
    terms = [*np.log(np.maximum(readings, LEAST)).T, limits]
    squares = [a * b for i, a in enumerate(terms) for b in terms[i:]]
    return np.stack([np.ones(len(limits)), *terms, *squares], axis=1)


def calibrate(read, carriers: np.ndarray, dtype: np.dtype, seed: int, scale: float = 1.0) -> Calibration:
    """Plants noise in carriers [n, ...] of this scale, and fits what `read`, examples -> readings [n, R], says of them."""
    images, levels = plant(np.random.default_rng(seed), carriers, dtype, scale)
    return fit(read(images), at_limits(images), levels, scale)
