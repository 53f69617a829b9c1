r"""Step rules: from x_t at the time t to x_s at the time s < t (scalars); x [B, ...], keys [B].

A rule is a `Step`. Most rules use the present state alone (`stateless`); multistep rules carry estimates of earlier steps. The
step to sigma_s = 0 adds no noise and ends at the estimate of x0.

The deterministic rules integrate the probability-flow ODE in EDM's variables, y = x / alpha over u = sigma / alpha:
dy/du = eps_hat. Every process takes this form (Karras et al. 2022, arXiv 2206.00364, eq. 4).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion import sde
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.diffusion.transition import learnt_log_variance, posterior
from advdiff_jax.errors import InvalidArgument

VARIANCES = ("small", "large", "learned")


class Step(NamedTuple):
    """A step rule.

    Attributes:
        init: x [B, ...] -> the rule's first carry, a pytree of arrays with fixed shapes.
        update: (denoise, keys, carry, x, t, s) -> (x_s, carry).
    """

    init: Callable[[jax.Array], Any]
    update: Callable[..., tuple[jax.Array, Any]]


def stateless(step: Callable[..., jax.Array]) -> Step:
    """Builds a rule without carry from (denoise, keys, x, t, s) -> x_s."""
    return Step(lambda x: (), lambda denoise, keys, carry, x, t, s: (step(denoise, keys, x, t, s), carry))


def _at(denoise, x, t):
    return denoise(x, jnp.full(x.shape[:1], t))


def ancestral(schedule: Schedule, variance: str = "small") -> Step:
    """Builds DDPM's ancestral step (Ho et al. 2020, eq. 6, 7): x_s ~ q(x_s | x_t, x0hat).

    Args:
        schedule: alpha and sigma.
        variance: "small", the posterior's var_ts sigma_s^2 / sigma_t^2, or "large", var_ts (DDPM's two choices of
            sigma_t^2), or "learned", the network's value between the two (Improved-DDPM).

    Raises:
        InvalidArgument: unknown `variance`.
    """
    if variance not in VARIANCES:
        raise InvalidArgument(f"variance={variance!r} is unknown: set one of {', '.join(VARIANCES)}")

    def step(denoise, keys, x, t, s):
        on_x, on_x0, small, large = posterior(schedule, t, s)
        estimate = _at(denoise, x, t)
        if variance == "learned":
            # small is 0 at s = 0, where no noise is added; any positive number keeps the logarithm finite.
            std = jnp.exp(0.5 * learnt_log_variance(estimate.variance, jnp.maximum(small, 1e-20), large))
        else:
            std = jnp.sqrt(large if variance == "large" else small)
        return on_x * x + on_x0 * estimate.x0 + jnp.where(schedule.sigma(s) > 0.0, std, 0.0) * rng.normal(keys, x)

    return stateless(step)


def ddim(schedule: Schedule, eta: float = 0.0) -> Step:
    """Builds DDIM (Song et al. 2021, eq. 12, 16): eta = 0 is deterministic, eta = 1 has the ancestral step's variance.

    Raises:
        InvalidArgument: `eta` is negative.
    """
    if eta < 0.0:
        raise InvalidArgument(f"eta={eta} must be at least 0")

    def step(denoise, keys, x, t, s):
        estimate = _at(denoise, x, t)
        std = eta * jnp.sqrt(posterior(schedule, t, s).small)
        mean = schedule.alpha(s) * estimate.x0 + jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - std**2, 0.0)) * estimate.eps
        return mean if eta == 0.0 else mean + std * rng.normal(keys, x)

    return stateless(step)


def euler_maruyama(schedule: Schedule) -> Step:
    """Builds the Euler-Maruyama step of the reverse SDE in t (Song et al. 2021; a predictor of score_sde)."""

    def step(denoise, keys, x, t, s):
        estimate = _at(denoise, x, t)
        drift, g2 = sde.reverse_drift(schedule, estimate, x, t)
        moved = x + (s - t) * drift + jnp.sqrt(g2 * (t - s)) * rng.normal(keys, x)
        return jnp.where(schedule.sigma(s) > 0.0, moved, schedule.alpha(s) * estimate.x0)

    return stateless(step)


def predictor_corrector(schedule: Schedule, predictor: Step, snr: float = 0.16, corrections: int = 1) -> Step:
    """Builds `corrections` Langevin steps at t, then the predictor's step to s (Song et al. 2021, algorithms 4 and 5).

    Their Langevin step is x += e score + sqrt(2 e) z with e = 2 (snr ||z|| / ||score||)^2. Here sigma, the expectation for unit
    noise, replaces the ratio of norms, so that an example does not depend on its batch.

    Args:
        schedule: alpha and sigma.
        predictor: any rule, usually `euler_maruyama` or `ancestral`.
        snr: signal-to-noise ratio of a correction, r of the paper; 0.16 is score_sde's for CIFAR-10.
        corrections: number of Langevin steps at each time.

    Raises:
        InvalidArgument: `snr` is not positive, or `corrections` is negative.
    """
    if snr <= 0.0:
        raise InvalidArgument(f"snr={snr} must be positive")
    if corrections < 0:
        raise InvalidArgument(f"corrections={corrections} must be at least 0")

    def update(denoise, keys, carry, x, t, s):
        for i in range(corrections):
            noise = rng.normal(rng.fold_in(keys, i), x)
            x = x + 2.0 * snr * schedule.sigma(t) * (noise - snr * _at(denoise, x, t).eps)
        return predictor.update(denoise, rng.fold_in(keys, corrections), carry, x, t, s)

    return Step(predictor.init, update)


def edm(
    schedule: Schedule,
    order: int = 2,
    gamma: float = 0.0,
    churn_min: float = 0.05,
    churn_max: float = 50.0,
    churn_noise: float = 1.003,
) -> Step:
    """Builds EDM's sampler (Karras et al. 2022, algorithm 2), in y = x / alpha over u = sigma / alpha for any process.

    Args:
        schedule: alpha and sigma.
        order: 2 for Heun (two evaluations a step, one in the step to sigma = 0), or 1 for Euler, which is DDIM if gamma = 0.
        gamma: churn: before a step, added noise raises u by a factor of 1 + gamma; min(S_churn / N, sqrt(2) - 1) in EDM.
        churn_min: S_tmin, no churn below this u.
        churn_max: S_tmax, no churn above this u.
        churn_noise: S_noise, inflation of the added noise's standard deviation.

    Raises:
        InvalidArgument: another order, or a negative gamma.
    """
    if order not in (1, 2):
        raise InvalidArgument(f"order={order} is unknown: set 1 or 2")
    if gamma < 0.0:
        raise InvalidArgument(f"gamma={gamma} must be at least 0")

    def churn(keys, y, t):
        u = schedule.noise_to_signal(t)
        t_hat = jnp.where((u >= churn_min) & (u <= churn_max), schedule.time((1.0 + gamma) * u), t)
        added = jnp.sqrt(jnp.maximum(schedule.noise_to_signal(t_hat) ** 2 - u**2, 0.0))
        return y + churn_noise * added * rng.normal(keys, y), t_hat

    def step(denoise, keys, x, t, s):
        y = x / schedule.alpha(t)
        if gamma > 0.0:
            y, t = churn(keys, y, t)
        du = schedule.noise_to_signal(s) - schedule.noise_to_signal(t)
        slope = _at(denoise, schedule.alpha(t) * y, t).eps
        y_s = y + du * slope
        if order == 2:
            # At sigma = 0 x holds no information on eps: the last step is Euler's, with one evaluation.
            end_slope = jax.lax.cond(
                schedule.sigma(s) > 0.0, lambda: _at(denoise, schedule.alpha(s) * y_s, s).eps, lambda: slope
            )
            y_s = y + 0.5 * du * (slope + end_slope)
        return schedule.alpha(s) * y_s

    return stateless(step)


def dpm_solver_2m(schedule: Schedule, stochastic: bool = False) -> Step:
    """Builds DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): second order, one evaluation a step.

    With h = log(u_t / u_s), y_s = (u_s / u_t) y + (1 - u_s / u_t) D, where D extrapolates x0hat from the step before:
    D = x0hat + h / (2 h_before) (x0hat - x0hat_before). The first step, and a last step to u = 0, take D = x0hat.

    With `stochastic`, SDE-DPM-Solver++(2M) of the same paper: with r = (u_s / u_t)^2 for u_s / u_t, and noise of variance
    u_s^2 (1 - r). It is `ancestral` (small) with D for x0hat, and 25 steps keep the variance that ancestral loses in 200.
    """

    def init(x):
        return jnp.zeros_like(x), jnp.zeros((), jnp.float32)  # x0hat and u of the step before; u = 0 marks the first step

    def update(denoise, keys, carry, x, t, s):
        before, u_before = carry
        u_t, u_s = schedule.noise_to_signal(t), schedule.noise_to_signal(s)
        x0 = _at(denoise, x, t).x0
        second = (u_before > 0.0) & (u_s > 0.0)
        ratio = jnp.log(u_t / jnp.where(second, u_s, 1.0)) / jnp.log(jnp.where(second, u_before / u_t, 2.0))
        mixed = x0 + jnp.where(second, 0.5 * ratio, 0.0) * (x0 - before)
        kept = (u_s / u_t) ** 2 if stochastic else u_s / u_t
        y_s = kept * x / schedule.alpha(t) + (1.0 - kept) * mixed
        if stochastic:
            y_s = y_s + u_s * jnp.sqrt(jnp.maximum(1.0 - kept, 0.0)) * rng.normal(keys, x)
        return schedule.alpha(s) * y_s, (x0, u_t)

    return Step(init, update)
