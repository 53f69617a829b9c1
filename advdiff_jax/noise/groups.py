r"""Decides which examples are noisy: one group or two, and is the noisier one white?

The logarithms of the levels have one mode or two. Two modes with a valley between them are two groups. A group is noise if it
is white (see `quiet`): the texture of clean images fades towards the quiet directions, and noise does not. So a clean set has
no noisy group, however far its textures spread, and a set without a clean example has no clean one. Noise too weak to stand out
of the content is not found.

Points of a few dimensions have no further quiet direction to compare with. There the lower group must lie on a surface, within
what counts as zero, or nothing is found.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.special

from advdiff_jax.noise.quiet import Reading

WHITE = 0.3  # largest median of |whiteness| of a group of noisy examples; photographs and clothes have 0.4 and more
WHITER = 0.1  # a clean lower group is less white than the upper one by more than this
DEPTH = 0.75  # of the valley between two modes: its density over that of the lower mode
FEWEST, SHARE = 8, 0.01  # members of a group, at least, and their share of all


class Groups(NamedTuple):
    """The verdict.

    Attributes:
        is_clean: [N].
        words: why, in one line.
    """

    is_clean: np.ndarray
    words: str


def split(reading: Reading, least: float, error: float, is_tiny: bool = False) -> Groups:
    """Splits examples into clean and noisy ones.

    Args:
        reading: of each example, [N].
        least: level that the storage of clean data has, by rounding; lower readings count as this.
        error: relative sampling error of a level, which smooths the distribution.
        is_tiny: the examples are points of a few dimensions.
    """
    logs = np.log(np.maximum(reading.level, least))
    threshold = _valley(logs, 0.1 if is_tiny else max(0.5 * error, 0.05))
    if is_tiny:
        lower = np.zeros(len(logs), bool) if threshold is None else logs <= threshold
        if not lower.any() or not _is_surface(reading.level, lower, np.exp(threshold), least):
            return Groups(np.ones(len(logs), bool), "nothing found: no part of these points lies on a surface")
        return Groups(lower, "one group lies on a surface; a point alone says too little, so the others share one level")
    if threshold is None:
        noisy = _is_noise(reading, np.ones(len(logs), bool), least)
        words = "the levels form one group, and it is white: no clean example" if noisy else "nothing found: no group is white"
        return Groups(np.full(len(logs), not noisy), words)
    upper = logs > threshold
    if not _is_white(reading.whiteness[upper]):
        return Groups(np.ones(len(logs), bool), "nothing found: the examples that stand out are textured, not noisy")
    bound = min(WHITE, WHITER + abs(np.median(reading.whiteness[upper])))
    if _is_noise(reading, ~upper, least, bound):
        return Groups(np.zeros(len(logs), bool), "the levels form two groups, and both are white: no clean example")
    return Groups(~upper, "the levels form two groups, and the upper one is white")


def _is_surface(levels, lower, threshold, least):
    """Says whether more points lie at zero than the noise of the others puts there."""
    std = np.sqrt(np.mean(levels[~lower] ** 2))
    expected = np.sum(~lower) * (2.0 * scipy.special.ndtr(threshold / std) - 1.0)
    return np.median(levels[lower]) <= 3.0 * least and np.sum(lower) > 2.0 * expected


def _is_white(whiteness, bound=WHITE):
    return abs(np.median(whiteness)) < bound


def _is_noise(reading, members, least, bound=WHITE):
    """Says whether a group is white, above three times what rounding alone makes."""
    return _is_white(reading.whiteness[members], bound) and np.median(reading.level[members]) > 3.0 * least


def _valley(logs, width):
    """Returns the bottom of the deepest valley between two modes; None: there is none."""
    low, high = logs.min(), logs.max()
    if high - low < width or len(logs) < 2 * FEWEST:
        return None
    grid = np.linspace(low - width, high + width, 400)
    # A histogram smoothed by a Gaussian of the reading's own error: a kernel density of many examples, in no time.
    counts = np.histogram(logs, len(grid), (grid[0], grid[-1]))[0].astype(float)
    density = scipy.ndimage.gaussian_filter1d(counts, width / (grid[1] - grid[0]), mode="constant")
    left, right = np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1]
    below, fewest = np.cumsum(counts), max(FEWEST, SHARE * len(logs))
    is_between = (below >= fewest) & (len(logs) - below >= fewest)  # a few outliers are no group
    depth = np.where(is_between, density / np.minimum(left, right), np.inf)
    bottom = int(np.argmin(depth))
    return float(grid[bottom]) if depth[bottom] < DEPTH else None
