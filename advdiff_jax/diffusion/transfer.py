r"""What the second term does to data, in closed form: the transfer curve (method.md section 3).

On linear-Gaussian data of variance s^2 the optimal model learns the score of data of variance s^2 / (1 + kappa(u)), with
kappa = lambda_t E[w^2] and u = sigma / alpha. Sampling it by the probability-flow ODE in u,

    dx/du = x u / (u^2 + s^2 / (1 + kappa(u))),     x(u_max) = sqrt(u_max^2 + s^2),

ends at x(u_min) = T(s) s. The gain T(s) on a direction of standard deviation s should be 0 for noise and 1 for signal. Where
kappa grows as 1 / u^2, as it does for a radius with a bias, x falls as a power of u, and u_min matters. The curve is a
guide to choose weights by: a network is not linear, and FGSM finds where it is not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.schedules import Schedule

# E[w^2] over the squared radius, w and r in the same units: U[-r, r], and FGSM, which ends at the corners of the box.
ENERGY = {"random": 1.0 / 3.0, "adversarial": 1.0}


def shrinkage(radius, weight: Callable, schedule: Schedule, energy: float) -> Callable[[np.ndarray], np.ndarray]:
    """kappa(u) = lambda_t E[w^2] of an objective as configured, on a process.

    Args:
        radius: a `perturbation.radius.Radius`.
        weight: a weight of `objectives.weights`.
        schedule: the process.
        energy: E[w^2] over the square of the radius, per dimension; see `ENERGY`.

    Returns:
        noise_to_signal [N] -> kappa [N]; a randomised bias is drawn with a fixed key.
    """

    def kappa(u):
        u = jnp.asarray(u, jnp.float32)
        t = schedule.time(u)
        u = schedule.noise_to_signal(t)  # nearest that the process reaches
        r = radius.sample(jax.random.split(jax.random.key(0), len(u)), u)
        w = radius.to_state(r, u) * schedule.scale(t) / schedule.sigma(t)
        w2 = energy * w**2
        return np.asarray(weight(u, r, w2) * w2)

    return kappa


def gain(
    kappa: Callable[[np.ndarray], np.ndarray], stds: np.ndarray, u_min: float = 0.002, u_max: float = 80.0, steps: int = 4000
) -> np.ndarray:
    """T(s) for each standard deviation s.

    Args:
        kappa: noise_to_signal [N] -> kappa [N].
        stds: standard deviations s > 0, [S].
        u_min: where the ODE ends; this and `u_max` are EDM's.
        u_max: where it starts.
        steps: steps of the trapezoidal rule, even in log u.

    Returns:
        T(s), [S].
    """
    u = np.geomspace(u_max, u_min, steps + 1)
    s2 = np.square(np.asarray(stds, np.float64))[:, None]
    # d log x / d log u = u^2 / (u^2 + s^2 / (1 + kappa)): the ODE is linear, so its logarithm is an integral.
    slope = u**2 / (u**2 + s2 / (1.0 + np.asarray(kappa(u), np.float64)))
    log_ratio = np.trapezoid(slope, np.log(u), axis=1)
    return np.sqrt((u_max**2 + s2[:, 0]) / s2[:, 0]) * np.exp(log_ratio)
