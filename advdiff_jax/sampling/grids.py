"""Time grids: decreasing times t_0 = 1 > ... > t_n, n steps."""

import numpy as np


def uniform(num_steps: int, t_end: float = 0.0) -> np.ndarray:
    """Uniform in t from 1 to `t_end`: [num_steps + 1], float32.

    With `t_end` = 0 this is DDPM's own grid for num_steps = T.

    Raises:
        ValueError: `num_steps` < 1.
    """
    if num_steps < 1:
        raise ValueError(f"need at least one sampling step, got {num_steps}")
    return np.linspace(1.0, t_end, num_steps + 1, dtype=np.float64).astype(np.float32)


def ddpm(num_steps: int, grid_steps: int) -> np.ndarray:
    """A sub-sequence of DDPM's grid {i / grid_steps}, as even as whole numbers allow, from 1 to 0: [num_steps + 1].

    Raises:
        ValueError: not 1 <= `num_steps` <= `grid_steps`.
    """
    if not 1 <= num_steps <= grid_steps:
        raise ValueError(f"need 1 to {grid_steps} sampling steps on a grid of {grid_steps}, got {num_steps}")
    return (np.round(np.linspace(grid_steps, 0, num_steps + 1)) / grid_steps).astype(np.float32)
