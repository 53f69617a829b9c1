r"""Certified accuracy by randomised smoothing (Cohen et al. 2019) behind a denoiser in one step (arXiv 2206.10550).

The smoothed classifier names the class that the base classifier names most often under noise of std s. If a draw names it with
probability p > 1/2, no shift shorter than

    s Phi^-1(p)      in L2

changes its answer. p is bounded from below by Clopper and Pearson with a small probability of failure. The class is chosen
on draws of its own, so that the bound holds.

The base classifier sees x0hat of alpha(t) (x + n), n the noise, at the smallest time t of the process whose u = sigma / alpha
is at least the noise's std in the data's units.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import InvalidArgument

ABSTAINED = -1  # in place of a class


class Certificate(NamedTuple):
    """What is certified of N images.

    Attributes:
        prediction: class of each, or ABSTAINED, [N].
        radius: L2, in the units of the std; 0 where it abstains, [N].
    """

    prediction: np.ndarray
    radius: np.ndarray

    def accuracy(self, labels: np.ndarray, radius: float) -> float:
        """Returns the share of images that have their class at this L2 radius, whatever the shift."""
        return float(np.mean((self.prediction == labels) & (self.radius >= radius)))


def time_of(schedule: Schedule, noise_to_signal: float, grid_steps: int) -> float:
    """Returns the smallest time with at least this sigma / alpha, on DDPM's grid if `grid_steps` is above 0.

    Raises:
        InvalidArgument: the process has no such level.
    """
    if grid_steps:
        times = np.arange(1, grid_steps + 1) / grid_steps
    else:
        times = np.array([schedule.t_min, float(schedule.time(jnp.float32(noise_to_signal))), 1.0])
    levels = np.asarray(schedule.noise_to_signal(jnp.asarray(times, jnp.float32)))
    reached = np.flatnonzero(levels >= noise_to_signal * (1.0 - 1e-5))
    if not len(reached):
        raise InvalidArgument(
            f"noise of std {noise_to_signal:g} in [-1, 1] is above the process, which ends at {levels[-1]:.3g}: lower it"
        )
    return float(times[reached[0]])


def one_step(schedule: Schedule, denoise: Callable, classify: Callable) -> Callable:
    """Builds the base classifier: (noisy images x + n [B, ...], t []) -> logits, by x0hat at the time t."""

    def base(noisy, t):
        return classify(denoise(schedule.alpha(t) * noisy, jnp.full(noisy.shape[:1], t)).x0)

    return base


def votes(
    base: Callable, classes: int, batch_size: int, key: jax.Array, x: jax.Array, std: jax.Array, t: jax.Array, draws: jax.Array
) -> jax.Array:
    """Counts the classes that `base` names under noise; pure.

    Args:
        base: (noisy images [B, ...], t []) -> logits [B, K].
        classes: K; static.
        batch_size: draws at once; static.
        key: a typed key.
        x: one image, [...].
        std: of the noise, in the data's units, [].
        t: time at which the base classifier denoises, [].
        draws: number of draws, [].

    Returns:
        counts [K] int32, of sum `draws`.
    """

    def body(i, counts):
        noise = jax.random.normal(jax.random.fold_in(key, i), (batch_size, *x.shape))
        named = jnp.argmax(base(x + std * noise, t), axis=-1)
        counted = i * batch_size + jnp.arange(batch_size) < draws  # the last batch may be too long
        return counts + jnp.sum(jax.nn.one_hot(named, classes, dtype=jnp.int32) * counted[:, None], axis=0)

    return jax.lax.fori_loop(0, -(-draws // batch_size), body, jnp.zeros(classes, jnp.int32))


def certify(chosen: np.ndarray, counts: np.ndarray, std: float, failure: float) -> Certificate:
    """Certifies images by the votes on them.

    Args:
        chosen: votes of the draws that choose the class, [N, K].
        counts: votes of the other draws, [N, K].
        std: of the noise, in the units of the radius.
        failure: chance that the certificate of an image is wrong.
    """
    import scipy.stats  # half a second of every start

    top, draws = chosen.argmax(axis=1), counts.sum(axis=1)
    named = np.take_along_axis(counts, top[:, None], axis=1)[:, 0]
    # Clopper and Pearson, one-sided; without a vote the bound is 0.
    lower = np.where(named > 0, scipy.stats.beta.ppf(failure, np.maximum(named, 1), draws - named + 1), 0.0)
    stands = lower > 0.5
    radius = np.where(stands, std * scipy.stats.norm.ppf(np.where(stands, lower, 0.5)), 0.0)
    return Certificate(np.where(stands, top, ABSTAINED), radius)
