r"""Draws the (example, time) pairs of a batch: first a time, then an example that may teach it.

An example with noise of std s says nothing of the clean law at noise-to-signal ratios u <= s, and little just above. It may
teach where u > m s, with a margin m. A time is drawn from the training distribution p(t), and then one of the n(t) examples
that may teach it, each alike. The expectation of the loss is therefore

    E_{t ~ p} [ 1 / n(t)  sum_{i: m s_i < u(t)}  loss_i(t) ]

Every noise level has its share of each batch, and no pair is wasted. Low levels are taught by the clean examples alone, high
ones by all. Levels that no example may teach are not drawn.
"""

import numpy as np

from advdiff_jax.errors import InvalidArgument

_PAIRS = 2  # separates this stream from those of shuffles and flips


class Pairs:
    """The pairs of batch k, computed from (seed, k) alone.

    Args:
        std: noise of each example, [N]; infinite: the example is never drawn.
        ratios: noise-to-signal ratio of the training time at the quantiles 0, 1/G, ..., (G - 1)/G, [G], not falling.
        margin: m.
        seed: of the draws.

    Raises:
        InvalidArgument: no example may teach any time.
    """

    def __init__(self, std: np.ndarray, ratios: np.ndarray, margin: float, seed: int):
        self._order = np.argsort(std, kind="stable")
        lowest = margin * np.asarray(std, np.float64)[self._order]
        self._counts = np.searchsorted(lowest, ratios, side="left")  # n(t)
        # An example without noise teaches every time, that with a ratio of 0 too.
        self._counts = np.maximum(self._counts, np.count_nonzero(std == 0.0))
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
