"""Time grids: decreasing times t_0 > ... > t_n = 0, n steps; t_0 = 1 but for DDPM's respacing."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.schedules import Schedule


def uniform(num_steps: int, t_end: float = 0.0) -> np.ndarray:
    """Uniform in t from 1 to `t_end`: [num_steps + 1], float32.

    With `t_end` = 0 this is DDPM's own grid for num_steps = T.

    Raises:
        ValueError: `num_steps` < 1.
    """
    _check(num_steps)
    return np.linspace(1.0, t_end, num_steps + 1, dtype=np.float64).astype(np.float32)


def _check(num_steps):
    if num_steps < 1:
        raise ValueError(f"need at least one sampling step, got {num_steps}")


def ddpm(num_steps: int, grid_steps: int) -> np.ndarray:
    """A sub-sequence of DDPM's grid {i / grid_steps}, as even as whole numbers allow, from 1 to 0: [num_steps + 1].

    Raises:
        ValueError: not 1 <= `num_steps` <= `grid_steps`.
    """
    if not 1 <= num_steps <= grid_steps:
        raise ValueError(f"need 1 to {grid_steps} sampling steps on a grid of {grid_steps}, got {num_steps}")
    return (np.round(np.linspace(grid_steps, 0, num_steps + 1)) / grid_steps).astype(np.float32)


def respaced(spacing: str, grid_steps: int) -> np.ndarray:
    """Improved-DDPM's `timestep_respacing` of DDPM's grid; the first time is the largest kept one, which may be below 1.

    Args:
        spacing: "ddimN", N steps of one whole stride, as the DDIM paper takes them; or counts "a,b,...": the grid is cut
            into as many even parts, the low times first, and a part keeps so many evenly spaced steps.
        grid_steps: T.

    Returns:
        times, [steps + 1], float32.

    Raises:
        ValueError: no stride gives N steps, a part is smaller than its count, or the spacing is neither form.
    """
    if spacing.startswith("ddim") and spacing[4:].isdigit():
        wanted = int(spacing[4:])
        kept = next((np.arange(0, grid_steps, i) for i in range(1, grid_steps) if -(-grid_steps // i) == wanted), None)
        if kept is None:
            raise ValueError(f"{spacing!r}: no whole stride takes {wanted} steps of a grid of {grid_steps}")
    else:
        kept = _sections(spacing, grid_steps)
    return np.concatenate([(kept[::-1] + 1) / grid_steps, [0.0]]).astype(np.float32)


def _sections(spacing, grid_steps):
    counts = spacing.split(",")
    if not all(count.strip().isdigit() and int(count) > 0 for count in counts):
        raise ValueError(f"spacing {spacing!r} is neither 'ddimN' nor counts like '50,25'")
    counts = [int(count) for count in counts]
    size, extra = divmod(grid_steps, len(counts))
    kept, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise ValueError(f"spacing {spacing!r}: a part of {length} steps cannot keep {count}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(stride * k) for k in range(count)]
        start += length
    return np.asarray(kept)


def log_snr(num_steps: int, schedule: Schedule) -> np.ndarray:
    """Uniform in log-SNR from t = 1 to t_min in num_steps - 1 steps, and then to 0 (DPM-Solver): [num_steps + 1]."""
    _check(num_steps)
    u_max, u_min = _ends(schedule)
    return _at(schedule, np.geomspace(u_max, u_min, num_steps) if num_steps > 1 else np.array([u_max]))


def edm(num_steps: int, schedule: Schedule, rho: float = 7.0) -> np.ndarray:
    """EDM's grid (Karras et al. 2022, eq. 5): even in (sigma / alpha)^(1/rho) from t = 1 to t_min, then 0: [num_steps + 1].

    Args:
        num_steps: number of steps.
        schedule: alpha and sigma.
        rho: 7 in EDM; the larger, the shorter the steps at low noise.

    Raises:
        ValueError: `num_steps` < 1 or `rho` <= 0.
    """
    _check(num_steps)
    if rho <= 0.0:
        raise ValueError(f"rho must be positive, got {rho}")
    u_max, u_min = _ends(schedule)
    return _at(schedule, np.linspace(u_max ** (1 / rho), u_min ** (1 / rho), num_steps) ** rho)


def _ends(schedule):
    with jax.ensure_compile_time_eval():  # a grid is made of numbers, also where it is asked for inside a jit
        return np.asarray(schedule.noise_to_signal(jnp.array([1.0, schedule.t_min])), np.float64)


def _at(schedule, u):
    with jax.ensure_compile_time_eval():
        times = np.array(schedule.time(jnp.asarray(u, jnp.float32)))
    times[0] = 1.0  # not the neighbour that rounding may give
    return np.append(times, np.float32(0.0))
