r"""The penalty on one example of each group, importance-weighted.

The penalty costs 5/3 of a plain step, and a weight with a cutoff is all but 0 on most of a batch: in DDPM's process one
example in 37 has u < 0.1. So one of m examples in a row is sampled where the penalty is strong:

    example i with chance P(i) = kappa_i / sum_j kappa_j,  its penalty weighted by 1 / P(i),    i, j among the m of a group

at 1/m of the cost. The gradient keeps its expectation in every step, up to the clipping of its norm, so Adam needs no
correction. If at most one of the m has a weight, the gradient is the same.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument


def one_per_group(penalty: Callable, group_size: int) -> Callable:
    """Wraps the penalty of `objectives.robust`: (predict, keys, point, weight) -> (penalty [B], residual [B / group_size]).

    Args:
        penalty: computes the penalty on all examples in its arguments.
        group_size: m; 1 computes the penalty on all examples.

    Returns:
        a function with the arguments of `penalty`. It spreads a group's penalty evenly over the group. If m > 1 it calls
        `predict(x, t, rows=rows)`: `rows` [B / m] are places in the batch, which select the masks of dropout.

    Raises:
        InvalidArgument: `group_size` < 1; when called, a batch that `group_size` does not divide.
    """
    if group_size < 1:
        raise InvalidArgument(f"group_size={group_size} must be at least 1")
    if group_size == 1:
        return penalty

    def subsampled(predict, keys, point, weight):
        if len(point.t) % group_size:
            raise InvalidArgument(f"group_size={group_size} does not divide the batch of {len(point.t)}")
        kappa = weight(point.u, point.r, point.energy) * point.energy
        rows, importance_weight = _sample(keys.group, kappa, group_size)
        keys, point = jax.tree.map(lambda value: value[rows], (keys, point))
        weighted, residual = penalty(
            functools.partial(predict, rows=rows), keys, point, lambda *args: importance_weight * weight(*args)
        )
        return jnp.repeat(weighted / group_size, group_size), residual

    return subsampled


def _sample(keys, kappa, m):
    """Samples one of each m examples in proportion to kappa [B]; returns its place and 1 / its chance, [B / m] each."""
    kappa = kappa.reshape(-1, m)
    chosen = jax.vmap(jax.random.categorical)(keys[::m], jnp.log(kappa))
    heavy = jnp.take_along_axis(kappa, chosen[:, None], axis=1)[:, 0]
    importance_weight = jnp.sum(kappa, axis=1) / jnp.where(heavy > 0.0, heavy, 1.0)  # 0 / 1 in a group without weight
    return m * jnp.arange(len(chosen)) + chosen, importance_weight
