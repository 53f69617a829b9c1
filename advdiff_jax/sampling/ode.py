"""Samples from the probability-flow ODE by an adaptive solver (diffrax), which needs no time grid."""

import jax
import jax.numpy as jnp

from advdiff_jax.diffusion import sde
from advdiff_jax.diffusion.schedules import Schedule


def solve(field, start, t0: float, t1: float, rtol: float, atol: float):
    """Integrates dy/dt = field(t, y) by the 5(4) pair of Tsitouras (2011) with an adaptive step.

    Args:
        field: (scalar t, y) -> dy/dt; y is a pytree.
        start: y at t0.
        t0: start time.
        t1: end time, before or after t0.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in the units of y.

    Returns:
        y at t1.
    """
    import diffrax  # a second of every start, for one sampler and one metric

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y)),
        diffrax.Tsit5(),
        t0=t0,
        t1=t1,
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=16_384,
    )
    return jax.tree.map(lambda y: y[-1], solution.ys)


def sample(schedule: Schedule, denoise, x: jax.Array, rtol: float = 1e-4, atol: float = 1e-4) -> jax.Array:
    """Integrates x_1 to x_0; the solver picks steps for each example alone, so a sample does not depend on its batch.

    Args:
        schedule: alpha and sigma; the ODE runs from t = 1 to its t_min, where the estimate of x0 ends the path.
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        x: start, [B, ...].
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in VP state units (times `Schedule.scale` at t_min, about 1).

    Returns:
        samples [B, ...].
    """

    def field(t, y):
        return sde.velocity(schedule, jax.tree.map(lambda a: a[0], denoise(y[None], jnp.full((1,), t))), t)

    ends = jax.vmap(lambda one: solve(field, one, 1.0, schedule.t_min, rtol, atol))(x)
    return denoise(ends, jnp.full(x.shape[:1], schedule.t_min)).x0
