r"""The gain curve: how much of each data direction the equivariance penalty preserves, in closed form.

On Gaussian data with variance s^2 a linear model eps_th = a x has the loss

    E[(a x_t - eps)^2] + lambda_t E[w^2] (sigma a - 1)^2,     which is smallest at

    a = sigma (1 + kappa) / (alpha^2 s^2 + sigma^2 (1 + kappa)),     kappa = lambda_t E[w^2]:

the score of data with variance s^2 / (1 + kappa(u)), u = sigma / alpha. The probability-flow ODE in u that samples it,

    dx/du = x u / (u^2 + s^2 / (1 + kappa(u))),     x(u_max) = sqrt(u_max^2 + s^2),

ends at x(u_min) = T(s) s. The ideal gain T(s) of a direction with standard deviation s is 0 for noise and 1 for signal. A
radius with a bias makes kappa grow as 1 / u^2. Then x falls as a power of u, u_min matters, and T(s) rises again as s goes to
0. The gain of a sampler does not rise, because its last step returns x0hat at u_min, which is smaller.

The curve guides the choice of weights. A network is not linear, and E[w^2] is assumed equal in all directions, while an ascent
puts more of it where the network is steepest (`objectives.robust`).

The invariance control shrinks eps_th and not x0hat: its optimal slope is a = sigma / (alpha^2 s^2 + sigma^2 (1 + kappa)),
so dx/du = x u / (s^2 + u^2 (1 + kappa(u))), and its gain lies above 1.

The literal reading of equation 9 moves state and target by the same delta and keeps neither. Its optimal slope is
a = sigma (1 + kappa sigma) / (alpha^2 s^2 + sigma^2 (1 + kappa)), sigma that of the VP process: near the control at low noise,
near the paper's at high noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule, bcast

# (u^2, s^2, kappa) -> d log y / d log u of the linear model, y = x_t / alpha, in [0, 1]. The keys name what stays invariant.
SLOPES = {
    "x0": lambda u2, s2, kappa: u2 / (u2 + s2 / (1.0 + kappa)),
    "eps": lambda u2, s2, kappa: u2 / (s2 + u2 * (1.0 + kappa)),
    "neither": lambda u2, s2, kappa: u2 * (1.0 + kappa * (u2 / (1.0 + u2)) ** 0.5) / (s2 + u2 * (1.0 + kappa)),
}


class PenaltyStrength(NamedTuple):
    """The strength of a penalty at noise levels u = sigma / alpha, each [N]; means over the radius's random bias.

    Attributes:
        noise_to_signal: u, clipped to the levels of the process.
        radius: of delta, in VP state units.
        weight: lambda_t.
        kappa: lambda_t E[w^2].
    """

    noise_to_signal: jax.Array
    radius: jax.Array
    weight: jax.Array
    kappa: jax.Array

    @property
    def share(self) -> jax.Array:
        """Returns kappa / (1 + kappa): the share of the data's variance that the model misses at this level, for any s."""
        return self.kappa / (1.0 + self.kappa)


def penalty_strength(
    radius, weight: Callable, schedule: Schedule, energy: float, draws: int = 16
) -> Callable[..., PenaltyStrength]:
    """Builds the strength of an objective's penalty on a process: u [N] -> `PenaltyStrength`, traceable by JAX.

    Args:
        radius: a `perturbation.radius.Radius`.
        weight: a weight of `objectives.weights`.
        schedule: the process.
        energy: E[w^2] over the squared radius, a mean over coordinates: 1 at the corners of the box and on the sphere,
            `Ball.energy` for a uniform draw.
        draws: number of draws of a randomised bias; the keys are fixed and the same at every level.
    """

    def at(u):
        t = schedule.time(jnp.asarray(u, jnp.float32))
        u = schedule.noise_to_signal(t)

        def one(key):
            r = radius.sample(jnp.broadcast_to(key, u.shape), u)
            state = radius.to_state(r, u)
            w2 = energy * (state * schedule.scale(t) / schedule.sigma(t)) ** 2
            lam = weight(u, r, w2)
            return state, lam, lam * w2

        drawn = jax.vmap(one)(jax.random.split(jax.random.key(0), draws))
        return PenaltyStrength(u, *(jnp.mean(value, axis=0) for value in drawn))

    return at


def gain(
    kappa: Callable[[np.ndarray], np.ndarray],
    stds: np.ndarray,
    u_min: float = 0.002,
    u_max: float = 80.0,
    steps: int = 4000,
    invariant: str = "x0",
) -> np.ndarray:
    """Computes the gain T(s) for each standard deviation s.

    Args:
        kappa: noise_to_signal [N] -> kappa [N].
        stds: standard deviations s > 0, [S].
        u_min: end of the ODE; this and `u_max` are EDM's.
        u_max: start of the ODE.
        steps: steps of the trapezoidal rule, even in log u.
        invariant: the estimate that the penalty keeps: "x0" (equivariance), "eps" (the invariance control) or "neither".

    Returns:
        T(s), [S].
    """
    u = np.geomspace(u_max, u_min, steps + 1)
    s2 = np.square(np.asarray(stds, np.float64))[:, None]
    # The ODE is linear, so log x is an integral.
    slope = SLOPES[invariant](u**2, s2, np.asarray(kappa(u), np.float64))
    log_ratio = np.trapezoid(slope, np.log(u), axis=1)
    return np.sqrt((u_max**2 + s2[:, 0]) / s2[:, 0]) * np.exp(log_ratio)


def linear_model(
    kappa: Callable[[jax.Array], jax.Array], schedule: Schedule, std: jax.Array, invariant: str = "x0"
) -> Callable:
    """Builds the optimal linear model of data with standard deviation `std`, as samplers take it: denoise(x [B, 1], t [B]).

    Args:
        kappa: noise_to_signal [B] -> kappa [B], or [1] if all examples are at one level; traced by JAX.
        schedule: the process.
        std: s, [].
        invariant: as for `gain`.
    """

    def denoise(x, t):
        u = schedule.noise_to_signal(t)
        y = x / bcast(schedule.alpha(t), x)
        slope = bcast(SLOPES[invariant](u**2, std**2, kappa(u)), x)
        return Denoised((1.0 - slope) * y, slope * y / bcast(u, x))

    return denoise
