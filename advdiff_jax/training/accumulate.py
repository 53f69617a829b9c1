"""Gradient accumulation: the gradient of a batch from micro-batches, one after the other, in the memory of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def over_micro_batches(gradient: Callable[..., tuple[Any, Any]], count: int) -> Callable[..., tuple[Any, Any]]:
    """Wraps a gradient of a mean loss, so that it runs on `count` equal parts of the batch in turn (`jax.lax.scan`).

    Examples keep their order and their own keys, so the result is that of the whole batch up to rounding.

    Args:
        gradient: (params, *examples) -> (mean over the examples, values of each example). The leaves of `examples` and of the
            values have the batch as their first axis, [B, ...]; the values may also have one row for each group of examples.
        count: number of parts, which divides B and leaves groups whole; 1 returns `gradient` itself.
    """
    if count == 1:
        return gradient

    def accumulated(params, *examples):
        parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, *first)[0])

        def add(total, part):
            mean, values = gradient(params, *part)
            return jax.tree.map(jnp.add, total, mean), values

        total, values = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x / count, total), jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), values)

    return accumulated
