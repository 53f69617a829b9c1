"""Score fields and sampling trajectories of points, on a flat section of their space, of a model and of the truth.

The units do not depend on the process. A field is a function of y = x_t / alpha at a level u = sigma / alpha, in data units;
a trajectory is in VP units, x_t / sqrt(alpha^2 + sigma^2).
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.data.sources import Source
from advdiff_jax.diffusion.model import Model
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior, sample


class Section(NamedTuple):
    """A plane through 0 in the space of the points: orthonormal axes, [2, D], and their names."""

    axes: np.ndarray
    names: tuple[str, str]


class Field(NamedTuple):
    """The noise eps_hat [L, N, 2], minus sigma times the score, at levels u [L] and points of a section [N, 2]."""

    levels: np.ndarray
    points: np.ndarray
    noise: np.ndarray


def section(basis: np.ndarray | None, shape: tuple[int, ...]) -> Section | None:
    """Builds the section for points of `shape`: the plane itself in 2-D, its edge-on view in 3-D; None otherwise."""
    if shape == (2,):
        return Section(np.eye(2), ("x1", "x2"))
    if shape != (3,):
        return None
    if basis is None:
        return Section(np.eye(3)[:2], ("x1", "x2"))
    return Section(np.stack([basis[0], np.cross(*basis)]), ("along the plane", "off the plane"))


def limit(source: Source) -> float:
    """Computes half the side of the square that figures show: a little more than the largest coordinate of clean data."""
    return 1.2 * float(np.abs(source.clean(np.random.default_rng(0), 2000)).max())


def score_field(model: Model, where: Section, levels: Sequence[float], half_side: float, side: int = 21) -> Field:
    """Computes eps_hat on a square grid of a section, projected on it, at each noise-to-signal level.

    Args:
        model: learnt or exact.
        where: the section.
        levels: values of u = sigma / alpha, [L].
        half_side: half the side of the square, data units.
        side: points of a row of the grid.
    """
    line = np.linspace(-half_side, half_side, side)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    y = jnp.asarray(points @ where.axes, jnp.float32)

    @jax.jit
    def at(u):
        t = jnp.full(y.shape[:1], model.schedule.time(u))
        return model.denoise(model.schedule.alpha(t)[:, None] * y, t).eps

    noise = np.stack([np.asarray(at(jnp.float32(u))) @ where.axes.T for u in levels])
    return Field(np.asarray(levels), points, noise)


def trajectories(model: Model, where: Section, shape: tuple[int, ...], count: int = 48, num_steps: int = 64) -> np.ndarray:
    """Computes paths of the probability-flow ODE from `count` fixed starts, [num_steps + 1, count, 2], in VP units."""
    schedule = model.schedule
    times = grids.log_snr(num_steps, schedule)
    keys = jax.random.split(jax.random.key(1), count)
    start = prior(keys, shape, schedule.prior_std)
    solve = jax.jit(lambda x: sample(model.denoise, keys, x, times, steps.dpm_solver_2m(schedule), trajectory=True))
    return np.asarray(solve(start) / schedule.scale(jnp.asarray(times))[:, None, None]) @ where.axes.T


class Drawn(NamedTuple):
    """The contents of one model's figures: its field, its trajectories [n + 1, N, 2], and the names of the axes."""

    field: Field
    paths: np.ndarray
    names: tuple[str, str]


def save(path: pathlib.Path, drawn: Drawn) -> None:
    """Writes a model's field and paths for the joint report of a list of runs."""
    np.savez(path, **drawn.field._asdict(), paths=drawn.paths, names=np.array(drawn.names))


def load(path: pathlib.Path) -> Drawn:
    """Reads a file that `save` wrote."""
    with np.load(path) as stored:
        field = Field(stored["levels"], stored["points"], stored["noise"])
        return Drawn(field, stored["paths"], tuple(map(str, stored["names"])))
