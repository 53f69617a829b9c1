r"""The largest local gain of x0hat: the top singular value of d x0hat / d x at a noised example, by power iteration.

A shift of the state by delta moves x0hat by at most gain x ||delta||, to first order. On Gaussian data of standard deviation s
the gain of the exact denoiser is alpha s^2 / (alpha^2 s^2 + sigma^2); between the modes of a distribution it is larger, since
d x0hat / dx = alpha / sigma^2 Cov[x0 | x_t]. An equivariant network (eq. 9) has none. Times sigma it is the displacement of
x0hat per kappa of `attacks`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.schedules import Schedule, bcast


def top_singular_values(function: Callable[[jax.Array], jax.Array], keys: jax.Array, x: jax.Array, steps: int) -> jax.Array:
    """Computes the largest singular value of each example's Jacobian by power iteration on J^T J; a lower bound.

    Args:
        function: x [B, ...] -> y [B, ...]; examples do not interact.
        keys: typed keys of the first directions, [B].
        x: [B, ...].
        steps: iterations, each a `jvp` and a `vjp`; the relative error falls with (s_2 / s_1)^(4 steps), s_2 the second value.

    Returns:
        [B].
    """
    _, push = jax.linearize(function, x)
    pull = jax.linear_transpose(push, x)

    def norm(v):
        return jnp.sqrt(jnp.sum(v**2, axis=tuple(range(1, v.ndim))))

    def unit(v):
        return v / bcast(jnp.maximum(norm(v), jnp.finfo(v.dtype).tiny), v)

    def iterate(v, _):
        return unit(*pull(push(v))), None

    direction, _ = jax.lax.scan(iterate, unit(rng.normal(keys, x)), length=steps)
    return norm(push(direction))


def local_gain(schedule: Schedule, denoise: Callable, keys: jax.Array, x0: jax.Array, t: jax.Array, steps: int) -> jax.Array:
    """Computes the gain at x_t = alpha x0 + sigma eps; pure.

    Args:
        schedule: alpha and sigma.
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        keys: typed keys of eps and of the first directions, [B].
        x0: examples or samples, [B, ...].
        t: one time, [].
        steps: of the power iteration.

    Returns:
        [B], in the data's units over those of the state.
    """
    noise_keys, start_keys = rng.split(keys, 2)
    times = jnp.full(x0.shape[:1], t)
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * rng.normal(noise_keys, x0)
    return top_singular_values(lambda x: denoise(x, times).x0, start_keys, x, steps)
