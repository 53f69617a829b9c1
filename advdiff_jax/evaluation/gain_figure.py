"""Figures of gain curves: the effect of the penalty in closed form, and as measured on samples."""

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from advdiff_jax.diffusion.gain import PenaltyStrength

KAPPA_FLOOR = 1e-3  # a smaller kappa has no visible effect, and is not drawn
TOP = 1.2  # upper end of the axis of the gain
MANY = 10  # more curves than this need a continuous colour map


class Curve(NamedTuple):
    """The gain curve of one config.

    Attributes:
        label: names the config.
        stds: standard deviations s of directions of the data, ascending, [S].
        gain: T(s) in closed form, [S].
        sampled: gain under the config's own sampler, [S], or None.
        strength: the penalty by noise level.
    """

    label: str
    stds: np.ndarray
    gain: np.ndarray
    sampled: np.ndarray | None
    strength: PenaltyStrength

    def numbers(self) -> dict:
        """Returns all numbers as lists, for JSON."""
        shown = self.strength._asdict() | {"share": self.strength.share}
        curve = {"std": self.stds, "gain": self.gain} | ({} if self.sampled is None else {"gain_as_sampled": self.sampled})
        return {name: np.asarray(value, float).tolist() for name, value in (curve | shown).items()}


def interpolate(x: np.ndarray | float, stds: np.ndarray, values: np.ndarray) -> np.ndarray | float:
    """Interpolates a curve's values [S] at its stds [S], linearly in log s."""
    return np.interp(np.log(x), np.log(stds), values)


def _colors(count):
    if count <= MANY:
        return [colormaps["tab10"](i) for i in range(count)]
    return [colormaps["turbo"](x) for x in np.linspace(0.02, 0.98, count)]


def _gain(axes, curves, noise_std):
    highest = [float(np.max(one.gain)) for one in curves]
    top = TOP if min(highest, default=0.0) < TOP else 1.1 * max(highest)  # a curve that explodes must not hide the others
    if noise_std is not None:
        axes.axvline(noise_std, color="0.5", linestyle=":", label=f"noise in the data, {noise_std:g}")
        ends = [curves[0].stds[0], noise_std, noise_std, curves[0].stds[-1]] if curves else [noise_std] * 4
        axes.plot(ends, [0, 0, 1, 1], color="0.75", linewidth=3, zorder=1, label="ideal")
    for one, color in zip(curves, _colors(len(curves)), strict=True):
        beyond = " (off the scale)" if np.max(one.gain) > top else ""
        axes.plot(one.stds, one.gain, color=color, label=one.label + beyond if len(curves) > 1 else "closed form")
        if one.sampled is not None:
            axes.plot(one.stds, one.sampled, "--", color="#d62728", label="with this config's sampler")
    axes.set(xscale="log", xlabel="standard deviation s of a direction, data units", ylabel="gain T(s)", ylim=(-0.04, top))
    axes.axhline(1.0, color="0.8", linewidth=0.8, zorder=0)


def draw(curves: list[Curve], noise_std: float | None) -> Figure:
    """Draws the gain over s, and kappa, share and radius over u; each curve is a line.

    Args:
        curves: at least one.
        noise_std: standard deviation of the noise in the training data, at which the ideal gain steps; None: unknown.
    """
    figure = Figure(figsize=(10.0, 7.2 + 0.2 * (len(curves) // 3)), dpi=100, layout="constrained")
    (gain, kappa), (share, radius) = figure.subplots(2, 2)
    _gain(gain, curves, noise_std)
    for one, color in zip(curves, _colors(len(curves)), strict=True):
        u, values = one.strength.noise_to_signal, one.strength.kappa
        kappa.plot(u, np.where(values > KAPPA_FLOOR, values, np.nan), color=color)
        share.plot(u, one.strength.share, color=color)
        radius.plot(u, np.where(one.strength.radius > 0, one.strength.radius, np.nan), color=color)
    if all(np.all(one.strength.kappa == 0) for one in curves):
        for axes in (kappa, radius):
            axes.text(0.5, 0.5, "no penalty", ha="center", va="center", transform=axes.transAxes, color="0.4")
            axes.set(xlim=(curves[0].strength.noise_to_signal[0], curves[0].strength.noise_to_signal[-1]), ylim=(0.1, 10.0))
    kappa.set(yscale="log", ylabel="kappa(u) = lambda E[w²]", title="Shrinkage of the variance")
    share.set(ylabel="kappa / (1 + kappa)", ylim=(-0.03, 1.03), title="Share of the variance that the model does not see")
    radius.set(yscale="log", ylabel="radius, VP state units", title="Radius")
    gain.set_title("Gain on the data")
    for axes in (kappa, share, radius):
        axes.set(xscale="log", xlabel="noise level u = sigma / alpha, data units")
        if noise_std is not None:
            axes.axvline(noise_std, color="0.5", linestyle=":")
    for axes in (gain, kappa, share, radius):
        axes.grid(alpha=0.25)
    figure.legend(*gain.get_legend_handles_labels(), loc="outside lower center", ncols=3 if len(curves) > 1 else 4, fontsize=9)
    return figure


def draw_measured(stds: np.ndarray, gains: np.ndarray, curves: list[Curve], noise_std: float | None) -> Figure:
    """Draws measured gains [K] over the training data's standard deviations [K], on the curves, if any."""
    figure = Figure(figsize=(7.0, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    _gain(axes, curves, noise_std)
    size = 40 if len(stds) <= 30 else 12
    axes.scatter(stds, gains, s=size, color="black", alpha=0.7, linewidths=0, zorder=3, label="measured on samples")
    low, high = stds.min() / 1.6, stds.max() * 1.6
    shown = [one.gain[(one.stds > low) & (one.stds < high)].max(initial=1.0) for one in curves]
    axes.set(xlim=(low, high), ylim=(-0.04, 1.1 * max([1.0, float(gains.max()), *shown])))
    axes.set_title("Gain on the principal directions of the training data")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure
