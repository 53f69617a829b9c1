"""Denoises images by a round trip: noise is added up to a time t*, and the sampler returns from there (SDEdit; DiffPure).

A short trip leaves the dirt, a long one replaces the image by another. Between them lies a best t*. On Gaussian data of
standard deviation S under dirt of standard deviation s the mean square error is known. With u = sigma / alpha at t*, the exact
denoiser and a deterministic sampler return x = a (y + u e), a = S / sqrt(S^2 + u^2), hence

    E (x - x0)^2 = (1 - a)^2 S^2 + a^2 (s^2 + u^2)

The ancestral sampler has a = S^2 / (S^2 + u^2), and adds the posterior's variance S^2 u^2 / (S^2 + u^2).
"""

from collections.abc import Callable

import jax
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.evaluation import figures

WINDOW = 7  # pixels: side of the window of SSIM, scikit-image's default
WIDTH = 2.0  # of the range of images, [-1, 1]
MEASURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS (lower is better)"}  # name -> label


def round_trip(
    schedule: Schedule, denoise: Callable, solve: Callable, keys: jax.Array, y: jax.Array, t: jax.Array
) -> jax.Array:
    """Adds noise to `y` up to the time `t`, and samples back to t = 0.

    Args:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`.
        solve: (denoise, keys, x_t) -> samples; starts at the time `t`.
        keys: typed keys, [B].
        y: images under dirt, [B, ...].
        t: t*, scalar.

    Returns:
        images, [B, ...].
    """
    noise_keys, step_keys = rng.split(keys, 2)
    return solve(denoise, step_keys, schedule.alpha(t) * y + schedule.sigma(t) * rng.normal(noise_keys, y))


def quality(images: np.ndarray, clean: np.ndarray, perceptual: Callable | None = None) -> dict[str, float]:
    """Computes the means over images of PSNR, SSIM (scikit-image) and LPIPS.

    Args:
        images: [N, H, W, C], in [-1, 1].
        clean: what they should be, of the same shape.
        perceptual: (images, clean) -> distances [N], of `lpips.lpips`; None: without LPIPS.

    Returns:
        `psnr` in dB, `ssim` of images of at least 7 x 7 pixels, and `lpips`.
    """
    from skimage.metrics import structural_similarity  # a second of every start

    error = np.mean((images - clean).reshape(len(clean), -1).astype(np.float64) ** 2, axis=1)
    with np.errstate(divide="ignore"):  # an image that equals its clean one has an infinite PSNR
        found = {"psnr": float(np.mean(10.0 * np.log10(WIDTH**2 / error)))}
    if min(clean.shape[1:3]) >= WINDOW:
        pairs = zip(images, clean, strict=True)
        found["ssim"] = float(
            np.mean([structural_similarity(a, b, win_size=WINDOW, data_range=WIDTH, channel_axis=-1) for a, b in pairs])
        )
    if perceptual:
        found["lpips"] = float(np.mean(perceptual(images, clean)))
    return found


def draw(levels: np.ndarray, curves: dict[str, list[float]], rivals: dict[str, dict[str, float]]) -> Figure:
    """Draws each measure over the noise level u of t*, and the rivals as horizontal lines.

    Args:
        levels: u = sigma / alpha at t*, [L].
        curves: measure -> values [L].
        rivals: name of a rival -> measure -> value.
    """
    figure = Figure(figsize=(4.2 * len(curves), 3.2), dpi=100, layout="constrained")
    for axes, (measure, values) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        axes.plot(levels, values, "o-", color=figures.INK, label="round trip")
        for (name, found), style in zip(rivals.items(), ("--", ":"), strict=True):
            axes.axhline(found[measure], linestyle=style, color="black", label=name)
        axes.set(xscale="log", xlabel=r"noise level $\sigma / \alpha$ at $t^*$", title=MEASURES[measure])
        axes.set_xticks(levels, [f"{level:.2g}" for level in levels])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_examples(rows: dict[str, np.ndarray], limit: float) -> Figure:
    """Draws images [K, H, W, C] in rows under their names; `limit` is the value of white."""
    canvas = figures.tile(np.stack(list(rows.values())), limit)
    height, width = canvas.shape[:2]
    figure = Figure(figsize=(8.0, 6.6 * height / width), dpi=100, layout="constrained")
    axes = figure.subplots()
    figures.show_canvas(axes, canvas)
    each = height / len(rows)
    axes.set_yticks([(i + 0.5) * each for i in range(len(rows))], rows)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
