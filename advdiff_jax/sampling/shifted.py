r"""A sampler whose state is shifted on the way, differentiable in the shifts with memory that grows as the root of the steps.

Step i takes x_i + delta_i instead of x_i. Reverse mode keeps the state at about sqrt(n) of the n steps and computes the rest
again, in two nested `jax.checkpoint` (Chen et al. 2016, arXiv 1604.06174): a gradient costs four network evaluations a step,
one of them the backward pass, instead of two.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax import rng
from advdiff_jax.sampling.steps import Step

EVALUATIONS = 4  # of the network per step, for the end of a path and its gradient: forward, forward twice again, backward


class Path(NamedTuple):
    """A sampler on its grid.

    Attributes:
        denoise: (x [B, ...], t [B]) -> `Denoised`.
        step: step rule of `sampling.steps`.
        times: decreasing, [n + 1].
    """

    denoise: Callable
    step: Step
    times: np.ndarray


def advance(path: Path, keys: jax.Array, state: Any, first: int, last: int, shifts: jax.Array | None = None) -> Any:
    """Takes a state from times[first] to times[last].

    Args:
        path: the sampler.
        keys: typed keys, [B]; step i of an example draws from `fold_in(key, i)`, as in `sample.sample`.
        state: x [B, ...] at times[first] and the carry of the rule, (x, carry).
        first: index of a time; static.
        last: index of a time, >= `first`; static.
        shifts: added to the state before the steps first .. last - 1, [last - first, B, ...]; None: no shifts.

    Returns:
        (x, carry) at times[last].
    """
    count = last - first
    if not count:
        return state
    times = jnp.asarray(path.times)
    steps = jnp.arange(first, last), times[first:last], times[first + 1 : last + 1], shifts

    def body(state, inputs):
        (x, carry), (i, t, s, shift) = state, inputs
        moved = x if shift is None else x + shift
        return path.step.update(path.denoise, rng.fold_in(keys, i), carry, moved, t, s), None

    # Inside a scan the compiler merges no common subexpressions, so the guard against that is left out.
    one = jax.checkpoint(body, prevent_cse=False)
    segment = jax.checkpoint(lambda state, inputs: jax.lax.scan(one, state, inputs), prevent_cse=False)
    size = math.isqrt(count)
    whole = count // size * size
    parts = jax.tree.map(lambda x: x[:whole].reshape(whole // size, size, *x.shape[1:]), steps)
    state, _ = jax.lax.scan(segment, state, parts)
    if whole < count:
        state, _ = segment(state, jax.tree.map(lambda x: x[whole:], steps))
    return state
