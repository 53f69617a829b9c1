r"""What the second term does to data, in closed form: the transfer curve.

On Gaussian data of variance s^2 a linear model eps_th = a x has the loss

    E[(a x_t - eps)^2] + lambda_t E[w^2] (sigma a - 1)^2,     which is smallest at

    a = sigma (1 + kappa) / (alpha^2 s^2 + sigma^2 (1 + kappa)),     kappa = lambda_t E[w^2]:

the score of data of variance s^2 / (1 + kappa(u)), u = sigma / alpha. Sampling it by the probability-flow ODE in u,

    dx/du = x u / (u^2 + s^2 / (1 + kappa(u))),     x(u_max) = sqrt(u_max^2 + s^2),

ends at x(u_min) = T(s) s. The gain T(s) on a direction of standard deviation s should be 0 for noise and 1 for signal. Where
kappa grows as 1 / u^2, as it does for a radius with a bias, x falls as a power of u, and u_min matters. The curve is a
guide to choose weights by: a network is not linear, and E[w^2] is taken to be the same in all directions, while an ascent puts
more of it where the network is steepest (`objectives.equivariance`).

The control, invariance, shrinks eps_th and not x0hat: its optimal slope is a = sigma / (alpha^2 s^2 + sigma^2 (1 + kappa)),
so dx/du = x u / (s^2 + u^2 (1 + kappa(u))), and its gain lies above 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule, bcast

# d log y / d log u of the linear model, y = x_t / alpha: (u^2, s^2, kappa) -> slope in [0, 1]. By `blame` of the objective.
SLOPES = {
    "noise": lambda u2, s2, kappa: u2 / (u2 + s2 / (1.0 + kappa)),
    "data": lambda u2, s2, kappa: u2 / (s2 + u2 * (1.0 + kappa)),
}


class Levels(NamedTuple):
    """The second term at noise levels u = sigma / alpha, each [N]; means over the radius's random bias.

    Attributes:
        noise_to_signal: u, the nearest that the process reaches.
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
        """kappa / (1 + kappa): the share of the data's variance that the model does not see at this level, whatever s is."""
        return self.kappa / (1.0 + self.kappa)


def second_term(radius, weight: Callable, schedule: Schedule, energy: float, draws: int = 16) -> Callable[..., Levels]:
    """What radius and weight of an objective amount to on a process: u [N] -> `Levels`, to be traced by JAX if wanted.

    Args:
        radius: a `perturbation.radius.Radius`.
        weight: a weight of `objectives.weights`.
        schedule: the process.
        energy: E[w^2] over the square of the radius, a mean over coordinates: 1 at the corners of the box and on
            the sphere, `Ball.energy` for a uniform draw.
        draws: draws of a randomised bias, with fixed keys, the same at every level.
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
        return Levels(u, *(jnp.mean(value, axis=0) for value in drawn))

    return at


def gain(
    kappa: Callable[[np.ndarray], np.ndarray],
    stds: np.ndarray,
    u_min: float = 0.002,
    u_max: float = 80.0,
    steps: int = 4000,
    blame: str = "noise",
    denoised: bool = False,
) -> np.ndarray:
    """T(s) for each standard deviation s.

    Args:
        kappa: noise_to_signal [N] -> kappa [N].
        stds: standard deviations s > 0, [S].
        u_min: where the ODE ends; this and `u_max` are EDM's.
        u_max: where it starts.
        steps: steps of the trapezoidal rule, even in log u.
        blame: "noise" (equivariance) or "data" (invariance).
        denoised: end with the estimate of x0 at u_min, as samplers do. Where kappa grows as 1 / u^2 that takes more away,
            whatever u_min is: the gain of the ODE alone then rises again as s goes to 0, and this one does not.

    Returns:
        T(s), [S].
    """
    u = np.geomspace(u_max, u_min, steps + 1)
    s2 = np.square(np.asarray(stds, np.float64))[:, None]
    # The ODE is linear, so its logarithm is an integral.
    slope = SLOPES[blame](u**2, s2, np.asarray(kappa(u), np.float64))
    log_ratio = np.trapezoid(slope, np.log(u), axis=1)
    if denoised:
        log_ratio = log_ratio + np.log1p(-slope[:, -1])
    return np.sqrt((u_max**2 + s2[:, 0]) / s2[:, 0]) * np.exp(log_ratio)


def linear_model(kappa: Callable[[jax.Array], jax.Array], schedule: Schedule, std: jax.Array, blame: str = "noise") -> Callable:
    """The optimal linear model of data of standard deviation `std`, as samplers take it: denoise(x [B, 1], t [B]).

    Args:
        kappa: noise_to_signal [B] -> kappa [B], or [1] where all are at one level; traced by JAX.
        schedule: the process.
        std: s, [].
        blame: as for `gain`.
    """

    def denoise(x, t):
        u = schedule.noise_to_signal(t)
        y = x / bcast(schedule.alpha(t), x)
        slope = bcast(SLOPES[blame](u**2, std**2, kappa(u)), x)
        return Denoised((1.0 - slope) * y, slope * y / bcast(u, x))

    return denoise
