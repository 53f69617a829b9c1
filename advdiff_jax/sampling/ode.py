"""The probability-flow ODE by an adaptive solver (diffrax): samples, without a time grid to choose."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion import sde
from advdiff_jax.diffusion.schedules import Schedule


def solve(field, start, t0: float, t1: float, rtol: float, atol: float, saveat: diffrax.SaveAt):
    """Integrates dy/dt = field(t, y) by the 5(4) pair of Tsitouras (2011) with an adaptive step.

    Args:
        field: (scalar t, y) -> dy/dt; y a pytree.
        start: y at t0.
        t0: where it starts.
        t1: where it ends, either side of t0.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in the units of y.
        saveat: what to return.

    Returns:
        y at the saved times, with a leading axis for them.
    """
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(t, y)),
        diffrax.Tsit5(),
        t0=t0,
        t1=t1,
        dt0=None,
        y0=start,
        saveat=saveat,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=16_384,
    )
    return solution.ys


def sample(schedule: Schedule, denoise, x: jax.Array, rtol: float = 1e-4, atol: float = 1e-4, times=None) -> jax.Array:
    """Carries x_1 to x_0; each example has its own steps, so that it does not depend on its batch.

    Args:
        schedule: alpha and sigma; integrated from t = 1 to its t_min, where the denoised estimate ends the path.
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        x: start, [B, ...].
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in VP state units (times `Schedule.scale` at t_min, about 1).
        times: return the states at these decreasing times, [n + 1], the last of which is 0, rather than the end.

    Returns:
        samples [B, ...], or states [n + 1, B, ...].
    """
    saved = [1.0, schedule.t_min] if times is None else [*np.maximum(times[:-1], schedule.t_min), schedule.t_min]
    saveat = diffrax.SaveAt(ts=jnp.asarray(saved, jnp.float32))

    def field(t, y):
        return sde.velocity(schedule, jax.tree.map(lambda a: a[0], denoise(y[None], jnp.full((1,), t))), t)

    paths = jax.vmap(lambda one: solve(field, one, 1.0, schedule.t_min, rtol, atol, saveat))(x)
    ends = denoise(paths[:, -1], jnp.full(x.shape[:1], schedule.t_min)).x0
    return ends if times is None else jnp.concatenate([jnp.moveaxis(paths[:, :-1], 1, 0), ends[None]])
