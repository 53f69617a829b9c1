"""The sampler: one scan of a step rule over a time grid."""

import jax
import jax.numpy as jnp

from advdiff_jax.sampling.steps import Step


def sample(denoise, keys: jax.Array, x: jax.Array, times: jax.Array, step: Step) -> jax.Array:
    """Carries x from times[0] to times[-1].

    Args:
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        keys: typed keys, [B]; step i of an example draws from `fold_in(key, i)`.
        x: start, usually a draw from the prior, [B, ...].
        times: decreasing, [n + 1].
        step: rule of `sampling.steps`.

    Returns:
        samples, [B, ...].
    """
    times = jnp.asarray(times)

    def body(x, interval):
        i, t, s = interval
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)
        return step(denoise, step_keys, x, t, s), None

    x, _ = jax.lax.scan(body, x, (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    return x


def prior(keys: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
    """Draws x_1 ~ N(0, std^2 I) of `shape` for each key: [B, *shape]."""
    return std * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
