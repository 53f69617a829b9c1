"""Time grids: decreasing times t_0 > ... > t_n = 0 of n steps; t_0 = 1 except in `respaced`."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import InvalidArgument


def uniform(num_steps: int) -> np.ndarray:
    """Returns times uniform in t from 1 to 0, [num_steps + 1], float32: for num_steps = T, DDPM's own grid.

    Raises:
        InvalidArgument: `num_steps` < 1.
    """
    _check(num_steps)
    return np.linspace(1.0, 0.0, num_steps + 1, dtype=np.float64).astype(np.float32)


def _check(num_steps):
    if num_steps < 1:
        raise InvalidArgument(f"num_steps={num_steps} must be at least 1")


def ddpm(num_steps: int, grid_steps: int) -> np.ndarray:
    """Returns a sub-sequence of DDPM's grid {i / grid_steps} from 1 to 0, as even as integers allow: [num_steps + 1].

    Raises:
        InvalidArgument: not 1 <= `num_steps` <= `grid_steps`.
    """
    if not 1 <= num_steps <= grid_steps:
        raise InvalidArgument(f"num_steps={num_steps} must be in [1, {grid_steps}], the steps of the discrete grid")
    return (np.round(np.linspace(grid_steps, 0, num_steps + 1)) / grid_steps).astype(np.float32)


def respaced(spacing: str, grid_steps: int) -> np.ndarray:
    """Respaces DDPM's grid as Improved-DDPM's `timestep_respacing`; the first time is the largest kept, maybe below 1.

    Args:
        spacing: "ddimN", N steps with one integer stride, as in the DDIM paper; or counts "a,b,...", one for each equal part
            of the grid, low times first: the number of evenly spaced steps that the part keeps.
        grid_steps: T.

    Returns:
        times, [steps + 1], float32.

    Raises:
        InvalidArgument: no stride gives N steps, a part is smaller than its count, or the spacing has neither form.
    """
    if spacing.startswith("ddim") and spacing[4:].isdigit():
        wanted = int(spacing[4:])
        kept = next((np.arange(0, grid_steps, i) for i in range(1, grid_steps) if -(-grid_steps // i) == wanted), None)
        if kept is None:
            raise InvalidArgument(f"spacing={spacing!r}: no stride takes {wanted} of {grid_steps} steps; set another N")
    else:
        kept = _sections(spacing, grid_steps)
    return np.concatenate([(kept[::-1] + 1) / grid_steps, [0.0]]).astype(np.float32)


def _sections(spacing, grid_steps):
    counts = spacing.split(",")
    if not all(count.strip().isdigit() and int(count) > 0 for count in counts):
        raise InvalidArgument(f"spacing={spacing!r} has no known form: set 'ddimN', or counts such as '50,25'")
    counts = [int(count) for count in counts]
    size, extra = divmod(grid_steps, len(counts))
    kept, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise InvalidArgument(f"spacing={spacing!r}: a part has only {length} steps, not {count}; set a smaller count")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(stride * k) for k in range(count)]
        start += length
    return np.asarray(kept)


def log_snr(num_steps: int, schedule: Schedule) -> np.ndarray:
    """Returns times uniform in log-SNR from t = 1 to t_min, and then 0 (DPM-Solver): [num_steps + 1].

    Raises:
        InvalidArgument: `num_steps` < 1.
    """
    _check(num_steps)
    u_max, u_min = _ends(schedule)
    return _at(schedule, np.geomspace(u_max, u_min, num_steps) if num_steps > 1 else np.array([u_max]))


def edm(num_steps: int, schedule: Schedule, rho: float = 7.0) -> np.ndarray:
    """Returns EDM's grid (Karras et al. 2022, eq. 5): even in u^(1/rho) from t = 1 to t_min, then 0: [num_steps + 1].

    Args:
        num_steps: number of steps.
        schedule: alpha and sigma; u = sigma / alpha.
        rho: 7 in EDM; a larger value makes the steps at low noise shorter.

    Raises:
        InvalidArgument: `num_steps` < 1 or `rho` <= 0.
    """
    _check(num_steps)
    if rho <= 0.0:
        raise InvalidArgument(f"rho={rho} must be positive")
    u_max, u_min = _ends(schedule)
    return _at(schedule, np.linspace(u_max ** (1 / rho), u_min ** (1 / rho), num_steps) ** rho)


def _ends(schedule):
    with jax.ensure_compile_time_eval():  # a grid holds concrete numbers, also inside a jit
        return np.asarray(schedule.noise_to_signal(jnp.array([1.0, schedule.t_min])), np.float64)


def _at(schedule, u):
    with jax.ensure_compile_time_eval():
        times = np.array(schedule.time(jnp.asarray(u, jnp.float32)))
    times[0] = 1.0  # exactly, whatever the rounding
    return np.append(times, np.float32(0.0))
