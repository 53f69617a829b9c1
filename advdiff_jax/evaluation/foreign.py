"""Foreign images in a training set: how many a model draws, and which training examples its own loss gives away.

The protocol is that of arXiv 2311.17101: a few per cent of another data set are mixed in, and the samples that look like it are
counted. Which images are foreign is known to the evaluation alone.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax import rng
from advdiff_jax.data.pixels import Examples, to_float
from advdiff_jax.diffusion.schedules import Schedule

BATCH = 256  # examples whose loss is computed at once


def nearest_share(vectors: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """Returns the share of vectors [N, F] whose nearest neighbour is one of the others [n, F], not one's own [n, F].

    Both sets should be of one size: the denser set wins ties of the distance.
    """
    from sklearn.neighbors import NearestNeighbors  # a second of every start

    index = NearestNeighbors(n_neighbors=1).fit(np.concatenate([own, others]))
    return float(np.mean(index.kneighbors(vectors, return_distance=False)[:, 0] >= len(own)))


def losses(
    schedule: Schedule,
    objective: Callable,
    predict: Callable,
    examples: Examples,
    levels: Sequence[float],
    draws: int,
    seed: int,
) -> np.ndarray:
    """Computes || eps_th - eps ||^2 of each example at each noise level, a mean over draws of the noise, [L, N].

    Args:
        schedule: alpha and sigma.
        objective: of `objectives.denoising`.
        predict: (x [B, ...], t [B]) -> prediction.
        examples: data set [N, ...].
        levels: sigma / alpha, [L].
        draws: of the noise, the same for all levels.
        seed: of the noise.
    """
    times = [float(schedule.time(jnp.float32(level))) for level in levels]

    @jax.jit
    def of_batch(keys, x, t):
        each = [objective(predict, rng.fold_in(keys, i), x, jnp.full(x.shape[:1], t))[1]["noise_error"] for i in range(draws)]
        return sum(each) / draws

    found = []
    for start in range(0, len(examples), BATCH):
        rows = np.arange(start, start + BATCH) % len(examples)  # batches of one shape make one program
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(rows)
        x = to_float(examples[rows])
        found.append(np.stack([np.asarray(of_batch(keys, x, jnp.float32(t))) for t in times]))
    return np.concatenate(found, axis=1)[:, : len(examples)]


def suspicion(loss: np.ndarray) -> np.ndarray:
    """Joins the levels of `losses` [L, N]: the mean rank of an example's loss, in (0, 1], [N]; the largest is most foreign."""
    import scipy.stats  # half a second of every start

    return np.mean([scipy.stats.rankdata(one) for one in loss], axis=0) / loss.shape[1]


def atypicality(loss: np.ndarray) -> np.ndarray:
    """Returns how far the logarithms of an example's `losses` [L, N] are from the median, as a Mahalanobis distance, [N].

    An image that is simpler than one's own has a smaller loss, and is as foreign (Nalisnick et al. 2019, arXiv 1906.02994).
    """
    logs = np.log(np.maximum(loss, 1e-12)).T
    away = logs - np.median(logs, axis=0)
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(logs.T)))
    return np.sqrt(np.maximum(np.einsum("nl,lk,nk->n", away, inverse, away), 0.0))


def named(score: np.ndarray, share: float) -> np.ndarray:
    """Returns which examples have the largest scores [N], a share of all, [N] bool."""
    chosen = np.zeros(len(score), bool)
    chosen[np.argsort(-score, kind="stable")[: round(share * len(score))]] = True
    return chosen


def area(score: np.ndarray, is_foreign: np.ndarray) -> float:
    """Returns the chance that a foreign example has the larger score, ties as half: the area under the ROC curve."""
    import scipy.stats  # half a second of every start

    foreign, own = score[is_foreign], score[~is_foreign]
    return float(scipy.stats.mannwhitneyu(foreign, own).statistic / (len(foreign) * len(own)))
