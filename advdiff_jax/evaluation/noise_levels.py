r"""Estimates the noise in each image, without clean data: by wavelets, and by what a trained model explains.

Wavelets: the median of the finest diagonal coefficients (Donoho & Johnstone 1994; `skimage.restoration.estimate_sigma`).
Texture counts as noise. Images of 8 x 8 pixels have too few coefficients: the estimate hardly separates clean from noisy.

The model: y + u e is denoised, and with the model's share of the noise variance that it explains in this image,

    q(u) = 1 - mean_d (eps_th(y + u e) - e)^2  =  u^2 / (s^2 + u^2)

for noise of std s on content that the model resolves, so that s = u sqrt(1 / q - 1). Content that it does not resolve at u
counts as noise. The sampling error falls as 1 / sqrt(dimensions x draws). Both readings compare sets of the same kind of
image, and neither is exact.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule

LEAST_SHARE = 1e-3  # of the noise explained: the largest level that can be read is about 30 u
COLOURS = ("#1f77b4", "#ff7f0e")


def explained(schedule: Schedule, denoise: Callable, keys: jax.Array, y: jax.Array, level: float, draws: int) -> jax.Array:
    """Computes the share q of the noise variance that a model explains in each example, [B].

    Args:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`, unclipped.
        keys: typed keys, [B].
        y: examples, [B, ...].
        level: u, a noise-to-signal ratio.
        draws: number of e.
    """
    t = jnp.full(y.shape[:1], schedule.time(jnp.asarray(level, jnp.float32)))

    def add(total, i):
        e = rng.normal(rng.fold_in(keys, i), y)
        missed = denoise(schedule.alpha(t[0]) * (y + level * e), t).eps - e
        return total + jnp.mean(missed.reshape(len(y), -1) ** 2, axis=1), None

    return 1.0 - jax.lax.scan(add, jnp.zeros(len(y)), jnp.arange(draws))[0] / draws


def from_share(share: np.ndarray, level: float) -> np.ndarray:
    """Returns the standard deviation s of the noise at which the share q(u) is explained, at u = `level`."""
    return level * np.sqrt(1.0 / np.clip(share, LEAST_SHARE, 1.0) - 1.0)


def summary(samples: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Returns the median levels of samples [N] and of training examples [M], and that of the cleanest tenth of the latter."""
    cleanest = np.sort(train)[: max(1, len(train) // 10)]
    return {"": float(np.median(samples)), "_dirty": float(np.median(train)), "_cleanest": float(np.median(cleanest))}


def is_smoother(samples: np.ndarray, train: np.ndarray) -> bool:
    """Says whether half of the samples have less noise than three quarters of the cleanest tenth of the training set.

    Samples as clean as that tenth have a median within its middle half.
    """
    cleanest = np.sort(train)[: max(1, len(train) // 10)]
    return bool(np.median(samples) < np.quantile(cleanest, 0.25))


def draw(readings: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draws a histogram per reading: name -> (levels of samples [N], levels of training examples [M])."""
    figure = Figure(figsize=(4.2 * len(readings), 3.0), dpi=100, layout="constrained")
    for axes, (name, sets) in zip(figure.subplots(1, len(readings), squeeze=False)[0], readings.items(), strict=True):
        top = max(float(np.quantile(levels, 0.995)) for levels in sets)
        bins = np.linspace(0.0, max(top, 1e-6), 41)
        for levels, label, colour in zip(sets, ("samples", "training set"), COLOURS, strict=True):
            shares = np.full(len(levels), 1.0 / len(levels))
            axes.hist(np.minimum(levels, bins[-1]), bins, weights=shares, histtype="step", color=colour, label=label)
        axes.set(title=name, xlabel="noise level, data's units", ylabel="share of the images")
    axes.legend()
    return figure
