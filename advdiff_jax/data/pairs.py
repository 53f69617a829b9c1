r"""Draws the (example, time) pairs of a batch: first a time, then an example that may teach it.

An example with noise of std s says nothing of the clean law at noise-to-signal ratios u <= s, and little just above. It may
teach where u > m s, with a margin m. A time is drawn from the training distribution p(t), and then one of the n(t) examples
that may teach it, each alike. The expectation of the loss is therefore

    E_{t ~ p} [ 1 / n(t)  sum_{i: m s_i < u(t)}  loss_i(t) ]

A level that was read with an error makes this soft: an example counts at t with the chance that m s_i < u(t).

Every noise level has its share of each batch, and no pair is wasted. Low levels are taught by the clean examples alone, high
ones by all. Levels that no example may teach are not drawn.
"""

import numpy as np
import scipy.stats

from advdiff_jax.errors import InvalidArgument

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
LEAST = 1.01  # margin: just above its own level an example's target has no bounded variance
_PAIRS = 2  # separates this stream from those of shuffles and flips


class Pairs:
    """The pairs of batch k, computed from (seed, k) alone.

    Args:
        std: noise of each example, [N]; infinite: the example is never drawn.
        ratios: noise-to-signal ratio of the training time at the quantiles 0, 1/G, ..., (G - 1)/G, [G], not falling.
        margin: m.
        seed: of the draws.
        uncertainty: relative standard deviation of each level that is not 0.

    Raises:
        InvalidArgument: no example may teach any time.
    """

    def __init__(self, std: np.ndarray, ratios: np.ndarray, margin: float, seed: int, uncertainty: float = 0.0):
        # Quantiles of each level stand for its law; none lets an example teach what is within its own level.
        shifts = np.exp(uncertainty * scipy.stats.norm.ppf(QUANTILES)) if uncertainty else np.ones(1)
        lowest = np.concatenate([np.maximum(margin * shift, LEAST) * np.asarray(std, np.float64) for shift in shifts])
        self._order = np.argsort(lowest, kind="stable")
        lowest, self._order = lowest[self._order], self._order % len(std)
        self._counts = np.searchsorted(lowest, ratios, side="left")  # n(t)
        # An example without noise teaches every time, that with a ratio of 0 too.
        self._counts = np.maximum(self._counts, len(shifts) * np.count_nonzero(std == 0.0))
        self._seed, self._first = seed, int(np.argmax(self._counts > 0)) / len(ratios)
        if not self._counts.any():
            raise InvalidArgument("no example may teach any noise level: all are noisier than the process reaches")

    @property
    def wasted(self) -> float:
        """Share of the training times that no example may teach, and that are not drawn."""
        return self._first

    def draw(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices of a batch's examples and the quantiles of their training times, [batch_size] each."""
        rng = np.random.default_rng([self._seed, _PAIRS, step])
        quantiles = self._first + (1.0 - self._first) * rng.uniform(size=batch_size)
        counts = self._counts[(quantiles * len(self._counts)).astype(int)]
        return self._order[rng.integers(counts)], quantiles.astype(np.float32)
