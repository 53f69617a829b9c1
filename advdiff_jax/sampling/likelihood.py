r"""Log-likelihood by the probability-flow ODE and the instantaneous change of variables (Song et al. 2021, section 4.3).

    log p_{t_min}(x) = log prior(x_1) + int_{t_min}^1 div v(x_t, t) dt,     dx_t/dt = v(x_t, t),   x_{t_min} = x

div v is exact (a Jacobian by `jax.jacfwd`) in up to `EXACT_DIMENSIONS` dimensions. Above, it is Hutchinson's unbiased estimate
e^T (dv/dx) e with Rademacher probes e. x is taken as x_{t_min}, so the density includes the noise at t_min, as in score_sde.
"""

import math

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion import sde
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.sampling.ode import solve

EXACT_DIMENSIONS = 16


def log_likelihood(
    schedule: Schedule, denoise, keys: jax.Array, x: jax.Array, rtol: float = 1e-4, atol: float = 1e-4, probes: int = 1
) -> jax.Array:
    """Computes log p(x) in nats.

    Args:
        schedule: alpha and sigma.
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        keys: typed keys, [B]; for the probes.
        x: points, [B, ...].
        rtol: relative tolerance of a step of the solver.
        atol: absolute tolerance.
        probes: number of Hutchinson probes per example; ignored if the divergence is exact.

    Returns:
        log p, [B].
    """
    shape, dim = x.shape[1:], math.prod(x.shape[1:])

    def velocity(t, flat):
        estimate = denoise(flat.reshape(1, *shape), jnp.full((1,), t))
        return sde.velocity(schedule, jax.tree.map(lambda a: a[0], estimate), t).reshape(-1)

    def one(key, point):
        noise = jax.random.rademacher(key, (probes, dim), jnp.float32)

        def field(t, state):
            flat, _ = state
            if dim <= EXACT_DIMENSIONS:
                return velocity(t, flat), jnp.trace(jax.jacfwd(lambda z: velocity(t, z))(flat))
            value, push = jax.linearize(lambda z: velocity(t, z), flat)
            return value, jnp.mean(jax.vmap(lambda e: jnp.vdot(e, push(e)))(noise))

        start = point.reshape(-1), jnp.zeros(())
        end, integral = solve(field, start, schedule.t_min, 1.0, rtol, atol)
        std = schedule.prior_std
        prior = -0.5 * jnp.sum((end / std) ** 2) - dim * (math.log(std) + 0.5 * math.log(2.0 * math.pi))
        return prior + integral

    return jax.vmap(one)(keys, x)


def bits_per_dimension(log_p: jax.Array, dim: int, bin_width: float = 1.0) -> jax.Array:
    """Returns -log2 of the probability of a cell of side `bin_width` around x, per dimension.

    Args:
        log_p: log-densities in nats, [B].
        dim: number of dimensions.
        bin_width: 2 / 255 for 8-bit images in [-1, 1]; 1 for points, which gives -log2 of the density.
    """
    return -(log_p / dim + math.log(bin_width)) / math.log(2.0)
