"""Config -> what its objective does to Gaussian data, in closed form: kappa by noise level, see `diffusion.gain`.

These are the `closed_form` of the objectives' specs: (config, schedule, noise_floor, dimension) -> `ClosedForm`, where
`noise_floor` and `dimension` are functions that are called only if the objective follows them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax.builders.penalty import BALLS, PERTURBATIONS, RADII, WEIGHTS, step_size
from advdiff_jax.builders.registry import build, lookup
from advdiff_jax.diffusion import gain
from advdiff_jax.diffusion.schedules import Schedule

# What a penalty keeps -> in words.
_KEPT = {"x0": "x0", "eps": "eps", "neither": "neither x0 nor eps"}

# criterion -> H''(c z) / 2 of its loss H with width c: how much an error of z widths counts over the square.
_CURVATURES = {"pseudo_huber": lambda z: (1.0 + z**2) ** -1.5, "huber": lambda z: 1.0 * (np.abs(z) <= 1.0)}


class ClosedForm(NamedTuple):
    """What an objective adds to plain denoising.

    Attributes:
        description: in words.
        at: u [N] -> `gain.PenaltyStrength`, to be traced by JAX if wanted.
        invariant: what the penalty keeps when the state moves, a name of `gain.SLOPES`.
        noise_floor: the noise level that its weight follows, if it follows one.
    """

    description: str
    at: Callable[..., gain.PenaltyStrength]
    invariant: str = "x0"
    noise_floor: float | None = None


def no_penalty(
    config: ml_collections.ConfigDict, schedule: Schedule, noise_floor: Callable[[], float], dimension: Callable[[], int]
) -> ClosedForm:
    """Returns the closed form of plain denoising: kappa = 0."""
    del config, schedule, noise_floor, dimension

    def at(u):
        u = jnp.asarray(u, jnp.float32)
        return gain.PenaltyStrength(u, *[jnp.zeros_like(u)] * 3)

    return ClosedForm("no penalty: every direction keeps its standard deviation, the gain is 1.", at)


def of_penalty(
    invariant: Callable[[ml_collections.ConfigDict], str],
    config: ml_collections.ConfigDict,
    schedule: Schedule,
    noise_floor: Callable[[], float],
    dimension: Callable[[], int],
    perturbation: str | None = None,
) -> ClosedForm:
    """Returns the closed form of an equivariance penalty, or of the control.

    Args:
        invariant: config -> what the penalty keeps, see `ClosedForm`.
        config: reads `robust`, `criterion`, `baselines`.
        schedule: the process.
        noise_floor: () -> what an adaptive weight follows.
        dimension: () -> dimension of the data, for the L2 ball.
        perturbation: the one whose energy counts, where the objective does not read `robust.perturbation`.
    """
    c = config.robust
    lookup(PERTURBATIONS, config, "robust.perturbation")
    kind = perturbation or c.perturbation
    radius = build(RADII, config, "robust.radius")
    followed = noise_floor() if "robust.explained" in lookup(WEIGHTS, config, "robust.weight").reads else None
    weight = build(WEIGHTS, config, "robust.weight", followed)
    named = f"{c.weight} (cut at {followed:.3g})" if followed else c.weight
    kept = invariant(config)
    description = f"{kind} perturbation, radius {c.radius}, weight {named}; keeps {_KEPT[kept]} invariant."
    energy = _energy(config, kind, dimension)
    at = gain.penalty_strength(radius, weight, schedule, energy)
    return ClosedForm(description + _robust_loss(config), jax.jit(at), kept, followed)


def input_perturbation(
    config: ml_collections.ConfigDict, schedule: Schedule, noise_floor: Callable[[], float], dimension: Callable[[], int]
) -> ClosedForm:
    """Returns the closed form of DDPM-IP: kappa = gamma^2 at every level, by a move of gamma sigma."""
    del noise_floor, dimension
    gamma = config.baselines.gamma

    def at(u):
        u = schedule.noise_to_signal(schedule.time(jnp.asarray(u, jnp.float32)))
        return gain.PenaltyStrength(u, gamma * u / jnp.hypot(u, 1.0), jnp.ones_like(u), jnp.full_like(u, gamma**2))

    return ClosedForm(f"the state is moved by {gamma:g} of its noise; keeps eps invariant.", at, "eps")


def _energy(config, kind, dimension):
    """E[w^2] over the square of the radius: of a draw, or where an ascent ends, which goes outward from its start."""
    c, ball = config.robust, build(BALLS, config, "robust.ball")
    reach = c.attack_steps * step_size(c)
    if kind != "random" and reach >= 1.0:
        return 1.0
    dim = dimension() if c.ball == "l2" else 1  # only the L2 ball reads it, and so the data
    if kind == "random":
        return ball.energy(1.0, dim)
    start = ((np.arange(1000) + 0.5) / 1000) ** (1 / dim) if c.random_start else 0.0
    return float(np.mean(np.minimum(1.0, start + reach) ** 2))


def _robust_loss(config):
    """Says how much a robust denoising loss strengthens the penalty.

    With e = a x_t - eps Gaussian, E[H'(e) x_t] = E[H''(e)] Cov(e, x_t) (Stein): the loss counts E[H''(e)] / 2 =
    E[(1 + e^2 / c^2)^(-3/2)], or P(|e| <= c) for Huber's, as much as the square. e has variance 1 where the model explains none
    of the noise, and c is at least min(huber_c, 1).
    """
    if config.criterion == "square":
        return ""
    e = np.linspace(-8.0, 8.0, 8001)
    counts = _CURVATURES[config.criterion](e / min(1.0, config.baselines.huber_c))
    curvature = np.average(counts, weights=np.exp(-(e**2) / 2))
    return (
        " The curve assumes a square denoising loss. This config's loss weighs large errors less, and the penalty is up to "
        f"{1.0 / curvature:.2g} times as strong at the levels where the model explains none of the noise."
    )
