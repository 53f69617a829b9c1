r"""Samples given a measurement y = A x + s n of each example, with A linear and n ~ N(0, I).

Three ways, in y-space z = x_t / alpha with noise-to-signal u and D(z, u) = x0hat:

`moments` replaces the denoiser by that of the posterior (DiEM, Rozet et al. 2024, arXiv 2405.13712). Given z, x has mean D and
covariance u^2 J with J = dD / dz, both by Tweedie's formula. If that law were Gaussian, Bayes' rule would give

    D_y(z) = D + u^2 J^T A^T v,     (s^2 I + u^2 A J A^T) v = y - A D

and any sampler that is given D_y draws from p(x | y). It is exact for Gaussian x. Conjugate gradients solve for v, and
J^T A^T v is a vector-Jacobian product: D_y costs an evaluation of D, and a backward pass to its input per iteration.

`dps` adds a gradient step to a sampler's step (Chung et al. 2023, arXiv 2209.14687):

    x_s <- x_s - zeta grad ||y - A D||     in the state of the variance-preserving process, as in the authors' code

It takes no s: noise in y is followed like signal.

`from_level` needs A = I. Then y itself is a state of the process with u = s, and the reverse process runs on from there
(SFBD, Lu et al. 2025, arXiv 2502.05446). Each example starts at a level of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.sampling.sample import sample
from advdiff_jax.sampling.steps import Step

LEAST_STD = 1e-3  # smallest s in `moments`, DiEM's: the linear system is singular at s = 0 where J is


class Measurement(NamedTuple):
    """What is measured of B examples.

    Attributes:
        y: measurements, [B, ...], of any shape.
        operator: A, linear in x and for each example alone: x [B, ...] -> A x of the shape of y.
        noise_std: s, in the units of y, [B].
    """

    y: jax.Array
    operator: Callable[[jax.Array], jax.Array]
    noise_std: jax.Array


def masked(y: jax.Array, mask: jax.Array, noise_std: jax.Array) -> Measurement:
    """Returns the measurement of examples whose pixels are seen where a mask is True.

    Args:
        y: examples, [B, ...]; what they hold elsewhere is not read.
        mask: bool, broadcasts against y.
        noise_std: of the noise in the seen pixels, [B].
    """
    return Measurement(jnp.where(mask, y, 0.0), lambda x: jnp.where(mask, x, 0.0), noise_std)


def moments(
    schedule: Schedule, denoise: Callable, measurement: Measurement, cg_steps: int, clip: float | None = None
) -> Callable:
    """Builds denoise(x, t) -> `Denoised` of the posterior; see the module docstring.

    Args:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`, unclipped.
        measurement: of the same B examples.
        cg_steps: iterations of conjugate gradients, at least 1; as many as y has coordinates are exact.
        clip: the posterior's x0 is clipped to [-clip, clip]; None: no clipping.
    """
    y, operator, std = measurement
    std = jnp.maximum(std, LEAST_STD)

    def denoise_posterior(x, t):
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        u2 = (sigma / alpha) ** 2

        def estimate(z):
            found = denoise(alpha * z, t)
            return found.x0, found.variance

        x0, pull, variance = jax.vjp(estimate, x / alpha, has_aux=True)
        predicted, transpose = jax.vjp(operator, x0)

        def image(v):
            return u2 * pull(transpose(v)[0])[0]  # u^2 J^T A^T v

        x0 = x0 + _solve(image, operator, bcast(std, y) ** 2, y - predicted, x0, cg_steps)
        x0 = x0 if clip is None else jnp.clip(x0, -clip, clip)
        return Denoised(x0, (x - alpha * x0) / sigma, variance)

    return denoise_posterior


def _solve(image, operator, s2, residual, like, cg_steps):
    """Returns image(v) for the v with s2 v + operator(image(v)) = residual, by conjugate gradients for each example.

    The images of the search directions are summed on the way, which spares one application of `image`.
    """

    def iterate(carry, _):
        total, r, p, rr = carry
        moved = image(p)
        q = s2 * p + operator(moved)
        curvature = _dot(p, q)
        step = jnp.where(curvature > 0.0, rr / jnp.where(curvature > 0.0, curvature, 1.0), 0.0)
        r = r - bcast(step, r) * q
        next_rr = _dot(r, r)
        ratio = jnp.where(rr > 0.0, next_rr / jnp.where(rr > 0.0, rr, 1.0), 0.0)
        return (total + bcast(step, like) * moved, r, r + bcast(ratio, p) * p, next_rr), None

    start = jnp.zeros_like(like), residual, residual, _dot(residual, residual)
    return jax.lax.scan(iterate, start, None, cg_steps)[0][0]


def _dot(a, b):
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def dps(schedule: Schedule, rule: Step, measurement: Measurement, zeta: float) -> Step:
    """Builds the step rule of DPS; see the module docstring.

    Args:
        schedule: alpha and sigma.
        rule: the step without a measurement, usually `steps.ancestral`.
        measurement: of the examples that are sampled.
        zeta: length of the gradient step.
    """
    y, operator, _ = measurement

    def update(denoise, keys, carry, x, t, s):
        def misfit(state):
            residual = y - operator(denoise(state, jnp.full(state.shape[:1], t)).x0)
            squared = _dot(residual, residual)
            return jnp.sum(jnp.where(squared > 0.0, jnp.sqrt(jnp.where(squared > 0.0, squared, 1.0)), 0.0))

        moved, carry = rule.update(denoise, keys, carry, x, t, s)
        # The step is zeta in the variance-preserving state x / scale: once for its gradient, once for its units.
        return moved - zeta * schedule.scale(t) * schedule.scale(s) * jax.grad(misfit)(x), carry

    return Step(rule.init, update)


def from_level(
    schedule: Schedule,
    denoise: Callable,
    keys: jax.Array,
    z: jax.Array,
    level: jax.Array,
    rule: Step,
    steps: int,
    rho: float,
    least: float = 0.0,
) -> jax.Array:
    """Runs the reverse process from z = x + u n, at each example's own u, down to 0.

    Args:
        schedule: alpha and sigma.
        denoise: (x_t [B, ...], t [B]) -> `Denoised`.
        keys: typed keys, [B].
        z: states, [B, ...], in the units of the data.
        level: u, [B]. Examples at or below the process's smallest u are returned as they are; those above its largest start
            there.
        rule: `steps.ancestral` draws from p(x | z); a rule of the probability-flow ODE maps z to one x.
        steps: number of steps of each example, on EDM's grid from u to the smallest and then to 0.
        rho: exponent of that grid.
        least: u at which the grid ends instead, for a model that has learnt nothing below.

    Returns:
        draws, [B, ...].
    """
    lowest = jnp.maximum(schedule.noise_to_signal(jnp.asarray(schedule.t_min, jnp.float32)), least)
    share = jnp.arange(steps) / max(1, steps - 1)

    def one(key, z, u):
        roots = u ** (1 / rho) + share * (lowest ** (1 / rho) - u ** (1 / rho))
        times = jnp.append(schedule.time(roots**rho), 0.0)
        return sample(denoise, key[None], schedule.alpha(times[0]) * z[None], times, rule)[0]

    drawn = jax.vmap(one)(keys, z, jnp.maximum(level, lowest))
    return jnp.where(bcast(level > lowest, z), drawn, z)
