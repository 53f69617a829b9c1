r"""Step rules `step(denoise, keys, x, t, s) -> x_s`, from the time t to the time s < t (scalars); keys [B], x [B, ...].

With alpha_ts = alpha_t / alpha_s and var_ts = sigma_t^2 - alpha_ts^2 sigma_s^2 (the noise that the forward process adds
between s and t), DDPM's beta_t and 1 - abar are var_ts and sigma^2, and any sub-sequence of times is covered at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.schedules import Schedule

Step = Callable[..., jax.Array]


def _transition(schedule, t, s):
    alpha_t, sigma_t, alpha_s, sigma_s = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
    alpha_ts = alpha_t / alpha_s
    var_ts = sigma_t**2 - (alpha_ts * sigma_s) ** 2
    return sigma_t, alpha_s, sigma_s, alpha_ts, jnp.maximum(var_ts, 0.0)


def _normal(keys, x):
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)


def ancestral(schedule: Schedule, variance: str = "small") -> Step:
    """DDPM's ancestral step (Ho et al. 2020, eq. 6, 7): x_s ~ q(x_s | x_t, x0hat).

    Args:
        schedule: alpha and sigma.
        variance: "small", the posterior's var_ts sigma_s^2 / sigma_t^2, or "large", var_ts (DDPM's two choices of
            sigma_t^2); no noise is added on the way to s = 0.

    Raises:
        ValueError: unknown `variance`.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"variance must be 'small' or 'large', got {variance!r}")

    def step(denoise, keys, x, t, s):
        sigma_t, alpha_s, sigma_s, alpha_ts, var_ts = _transition(schedule, t, s)
        x0 = denoise(x, jnp.full(x.shape[:1], t)).x0
        mean = (alpha_ts * sigma_s**2 * x + alpha_s * var_ts * x0) / sigma_t**2
        std = jnp.sqrt(var_ts) if variance == "large" else jnp.sqrt(var_ts) * sigma_s / sigma_t
        return mean + jnp.where(sigma_s > 0.0, std, 0.0) * _normal(keys, x)

    return step


def ddim(schedule: Schedule, eta: float = 0.0) -> Step:
    """DDIM (Song et al. 2021, eq. 12, 16): eta = 0 is deterministic, eta = 1 has the ancestral step's variance.

    Raises:
        ValueError: `eta` is negative.
    """
    if eta < 0.0:
        raise ValueError(f"eta must not be negative, got {eta}")

    def step(denoise, keys, x, t, s):
        sigma_t, alpha_s, sigma_s, _, var_ts = _transition(schedule, t, s)
        x0, eps = denoise(x, jnp.full(x.shape[:1], t))
        std = eta * jnp.sqrt(var_ts) * sigma_s / sigma_t
        mean = alpha_s * x0 + jnp.sqrt(jnp.maximum(sigma_s**2 - std**2, 0.0)) * eps
        return mean if eta == 0.0 else mean + std * _normal(keys, x)

    return step
