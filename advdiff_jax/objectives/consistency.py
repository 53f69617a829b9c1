r"""Ambient's consistency term (Daras et al. 2024, arXiv 2404.10177): carries what is learnt above the noise level below it.

An example with noise of std s teaches the estimate D of x0 at u > s alone. But D is a martingale along the reverse process,
E[ D(x') | x ] = D(x), for x' at a lower level. With x', x'' two independent stochastic moves from the same x,

    mean[ ( D(x') - D(x) ) ( D(x'') - D(x) ) ]

has the expectation || E[D(x') | x] - D(x) ||^2, which is 0 for the right D at the lower level. A move is one ancestral step
q(x' | x, x0 = D(x)), whose mean is exact for the right D. On Gaussian data the term has its minimum at the clean posterior
mean for a step of any length. On other data the step lacks the spread of x0 given x, so it must be short.

The moves start at u = (1 + margin) s, the lowest level that the example teaches, and end at a training time below it [R]. The
authors step along the grid of their sampler. They advise the term only where nearly all examples are noisy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.diffusion.transition import posterior
from advdiff_jax.objectives.times import time_below


def consistency(schedule: Schedule, parameterization: Parameterization, margin: float) -> Callable[..., jax.Array]:
    """Builds the term of the module docstring, a mean over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        margin: moves start at u = (1 + margin) s.

    Returns:
        term(predict, keys [B], x_n [B, ...], noise_std [B]) -> [B], 0 for clean examples. Single values may be negative.
    """

    def term(predict, keys, x_n, noise_std):
        start_keys, time_keys, first_keys, second_keys = rng.split(keys, 4)
        noisy = noise_std > 0.0
        t = schedule.time((1.0 + margin) * jnp.where(noisy, noise_std, 1.0))
        u = schedule.noise_to_signal(t)
        below = time_below(schedule, u, rng.uniform(time_keys))
        usable = noisy & (u > noise_std) & (schedule.noise_to_signal(below) < u)

        def estimate(state, t):
            alpha, sigma = bcast(schedule.alpha(t), state), bcast(schedule.sigma(t), state)
            return parameterization.invert(split_variance(predict(state, t), state)[0], state, alpha, sigma).x0

        added = bcast(jnp.sqrt(jnp.maximum(u**2 - noise_std**2, 0.0)), x_n)
        x = bcast(schedule.alpha(t), x_n) * (x_n + added * rng.normal(start_keys, x_n))
        x0hat = estimate(x, t)
        on_x, on_x0, variance, _ = (bcast(value, x) for value in posterior(schedule, t, below))
        mean = jax.lax.stop_gradient(on_x * x + on_x0 * x0hat)
        gaps = (estimate(mean + jnp.sqrt(variance) * rng.normal(key, x), below) - x0hat for key in (first_keys, second_keys))
        product = next(gaps) * next(gaps)
        return jnp.where(usable, jnp.mean(product.reshape(len(t), -1), axis=-1), 0.0)

    return term
