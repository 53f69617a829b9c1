"""The sampler: one scan of a step rule over a time grid."""

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.sampling.steps import Step


def sample(denoise, keys: jax.Array, x: jax.Array, times: jax.Array, step: Step, trajectory: bool = False) -> jax.Array:
    """Takes x from times[0] to times[-1].

    Args:
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        keys: typed keys, [B]; step i of an example draws from `fold_in(key, i)`.
        x: start, usually a draw from the prior, [B, ...].
        times: decreasing, [n + 1].
        step: step rule of `sampling.steps`.
        trajectory: return the states at all times instead of the last.

    Returns:
        samples [B, ...]; with `trajectory` the states at all times, [n + 1, B, ...].
    """
    times = jnp.asarray(times)

    def body(state, interval):
        (x, carry), (i, t, s) = state, interval
        x, carry = step.update(denoise, rng.fold_in(keys, i), carry, x, t, s)
        return (x, carry), x if trajectory else None

    (end, _), states = jax.lax.scan(body, (x, step.init(x)), (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    return jnp.concatenate([x[None], states]) if trajectory else end


def prior(keys: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
    """Draws x_1 ~ N(0, std^2 I) of `shape` for each key: [B, *shape]."""
    return std * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
