"""The one file that knows how work is spread over devices: `jax.pmap` over every device of every process.

Data parallel: each device holds the whole state and its share of the batch. The key of an example is
fold_in(fold_in(base, step), index in the global batch), so that a result does not depend on how many devices there are.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from advdiff_jax.training.plan import Plan

AXIS = "devices"


def _example_keys(key: jax.Array, count: int) -> jax.Array:
    """Keys [count] of this device's share of a batch; inside a pmap over AXIS."""
    indices = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def average(tree: Any) -> Any:
    """Mean over devices, for `training.step.make_train_step`."""
    return jax.lax.pmean(tree, AXIS)


def parallel_train_step(train_step: Callable) -> Callable:
    """Maps `train_step(state, keys, batch)` over devices.

    Args:
        train_step: the pure step, built with `average` of this module.

    Returns:
        step(state, base_key, batch) -> (state, metrics): the state replicated (and donated), the same typed key on every
        device each step, leaves of the batch [local devices, batch per device, ...].
    """

    def device_step(state, base_key, batch):
        count = jax.tree.leaves(batch)[0].shape[0]
        return train_step(state, _example_keys(jax.random.fold_in(base_key, state.step), count), batch)

    return jax.pmap(device_step, axis_name=AXIS, in_axes=(0, None, 0), donate_argnums=0)


class Compiled(NamedTuple):
    """A step of a plan: its share of all steps, the mapped step, and what the compiler made of it, for its costs."""

    share: float
    step: Callable
    executable: Any


def compile_plan(plan: Plan, *arguments) -> tuple[dict[bool, Compiled], float]:
    """Maps and compiles the steps that a plan uses, for the arguments of a mapped step.

    The executables tell costs; the mapped steps are what is called, which then finds them compiled. (A compiled pmap refuses
    several processes.)

    Returns:
        has the second term -> `Compiled`, and the mean FLOPs of a step on all devices over the whole run.
    """
    found = {}
    for full, (share, train_step) in plan.parts().items():
        step = parallel_train_step(train_step)
        found[full] = Compiled(share, step, step.lower(*arguments).compile())
    flops = sum(one.share * one.executable.cost_analysis()["flops"] for one in found.values())
    return found, flops * jax.device_count()


def parallel_sampler(draw: Callable, per_device: int) -> Callable[[Any, jax.Array, int], np.ndarray]:
    """Spreads sampling over devices.

    Args:
        draw: (params, keys [B]) -> samples [B, ...].
        per_device: largest B of a device at a time.

    Returns:
        sampler(replicated params, key, n) -> n samples as NumPy, on every process; sample i comes from fold_in(key, i).
    """

    def device_draw(params, key, first):
        indices = first + jax.lax.axis_index(AXIS) * per_device + jnp.arange(per_device)
        samples = draw(params, jax.vmap(lambda index: jax.random.fold_in(key, index))(indices))
        return jax.lax.all_gather(samples, AXIS, tiled=True)

    mapped = jax.pmap(device_draw, axis_name=AXIS, in_axes=(0, None, None))

    def sampler(params, key, n):
        total = per_device * jax.device_count()
        rounds = [first_replica(mapped(params, key, first)) for first in range(0, n, total)]
        return np.concatenate([np.asarray(samples) for samples in rounds])[:n]

    return sampler


def _local_sharding() -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: Any) -> Any:
    """Puts a copy of every leaf on each local device: [...] -> [local devices, ...], the layout of pmap."""
    sharding, count = _local_sharding(), jax.local_device_count()
    return jax.tree.map(lambda x: jax.device_put(jnp.broadcast_to(x, (count, *jnp.shape(x))), sharding), tree)


def first_replica(tree: Any) -> Any:
    """The first local device's copy, on that device; reading a shard costs a thousandth of indexing with x[0]."""
    return jax.tree.map(lambda x: x.addressable_shards[0].data.squeeze(0), tree)


def shard(iterator: Iterator[Any]) -> Iterator[Any]:
    """Moves each batch to the local devices, one ahead of its use: [b, ...] -> [local devices, b / local devices, ...].

    A batch is an array, or a tuple of arrays with the same first axis.
    """
    sharding, count = _local_sharding(), jax.local_device_count()

    def put(batch):
        return jax.device_put(jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch), sharding)

    ahead = put(next(iterator))
    for batch in iterator:
        current, ahead = ahead, put(batch)
        yield current
