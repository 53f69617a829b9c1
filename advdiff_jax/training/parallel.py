"""Spreads work over devices, and is the only file that knows them: `jax.pmap` over every device of every process.

Data parallel: each device holds the whole state and its share of the batch. The key of an example is
fold_in(fold_in(base, step), index in the global batch), so that a result does not depend on the number of devices.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # its key-value store, which has no public name; Orbax takes it there too
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from advdiff_jax.errors import UserError

AXIS = "devices"
_ENDED = "advdiff_jax/ended/"  # prefix of keys in that store: process -> why it ends
_PATIENCE = 10.0  # seconds in which the other processes are to learn of it

T = TypeVar("T")


def _example_keys(key: jax.Array, count: int) -> jax.Array:
    """Returns the keys [count] of this device's share of a batch, inside a pmap over AXIS."""
    indices = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def average(tree: Any) -> Any:
    """Averages a pytree over devices, for `training.step.make_train_step`."""
    return jax.lax.pmean(tree, AXIS)


def parallel_train_step(train_step: Callable, micro_batches: int = 1, devices: Sequence[jax.Device] | None = None) -> Callable:
    """Maps `train_step(state, keys, batch, micro_batches)` over devices.

    Args:
        train_step: the pure step, built with `average` of this module.
        micro_batches: parts of a device's share of the batch, which run in turn.
        devices: all devices by default.

    Returns:
        step(state, base_key, batch) -> (state, metrics). The state is replicated and donated. `base_key` is one typed key for
        all steps; `on_every_device` spares it a transfer in each. Leaves of the batch are [local devices, batch per device,
        ...].
    """

    def device_step(state, base_key, batch):
        count = jax.tree.leaves(batch)[0].shape[0]
        keys = _example_keys(jax.random.fold_in(base_key, state.step), count)
        return train_step(state, keys, batch, micro_batches=micro_batches)

    return jax.pmap(device_step, axis_name=AXIS, in_axes=(0, None, 0), donate_argnums=0, devices=devices)


class CompiledStep(NamedTuple):
    """A compiled kind of step, plain or with the penalty.

    Attributes:
        share: of all steps of the run, in [0, 1].
        step: the mapped step, which finds its program compiled. It is called because a compiled pmap refuses several processes.
        executable: the compiled program, for its memory analysis.
        flops: floating-point operations of a step on one device, as the compiler counts them.
    """

    share: float
    step: Callable
    executable: Any
    flops: float


def compile_steps(
    shares: dict[bool, float], steps: dict[bool, Callable], *arguments, micro_batches: int = 1
) -> dict[bool, CompiledStep]:
    """Maps and compiles each kind of step that a run takes.

    Args:
        shares: whether a step has the penalty -> share of all steps, for the kinds that the run takes.
        steps: whether a step has the penalty -> the pure step.
        *arguments: example arguments of a mapped step.
        micro_batches: as for `parallel_train_step`.
    """
    compiled = {}
    for kind, share in shares.items():
        step = parallel_train_step(steps[kind], micro_batches)
        executable = step.lower(*arguments).compile()
        # The compiler counts the body of a loop once, so the work of micro-batches is counted on the whole batch.
        counted = executable if micro_batches == 1 else parallel_train_step(steps[kind]).lower(*arguments)
        compiled[kind] = CompiledStep(share, step, executable, counted.cost_analysis()["flops"])
    return compiled


def mean_flops(compiled: dict[bool, CompiledStep]) -> float:
    """Returns the floating-point operations per step on all devices, averaged over the run's steps."""
    return sum(one.share * one.flops for one in compiled.values()) * jax.device_count()


def parallel_sampler(draw: Callable, per_device: int) -> Callable[..., Iterator[np.ndarray]]:
    """Spreads sampling over devices.

    Args:
        draw: (params, keys [B]) -> samples [B, ...].
        per_device: largest B of a device in a round.

    Returns:
        sampler(replicated params, key, n) -> rounds of samples, n in all, as NumPy on every process. Sample i comes from
        fold_in(key, i). A round goes to the host before the next is drawn.
    """

    def device_draw(count, params, key, first):
        indices = first + jax.lax.axis_index(AXIS) * count + jnp.arange(count)
        samples = draw(params, jax.vmap(lambda index: jax.random.fold_in(key, index))(indices))
        return jax.lax.all_gather(samples, AXIS, tiled=True)

    mapped = jax.pmap(device_draw, axis_name=AXIS, in_axes=(None, 0, None, None), static_broadcasted_argnums=0)

    def sampler(params, key, n):
        count = min(per_device, n)  # a handful does not cost a full round; the same on any number of devices, for equal bits
        for first in range(0, n, count * jax.device_count()):
            yield np.asarray(first_replica(mapped(count, params, key, first)))[: n - first]

    return sampler


def parallel_apply(apply: Callable, params: Any) -> Callable[[Any, Any], Any]:
    """Spreads a network over the local devices.

    Args:
        apply: (params, batch) -> pytree of [b, ...]; the batch is an array or a pytree of [b, ...].
        params: its parameters; each device gets a copy now.

    Returns:
        mapped(params, batch) -> pytree of [n, ...], of those parameters; the batch, a pytree of [n, ...], is filled up for
        even shares.
    """
    replicated, mapped, devices = replicate(params), jax.pmap(apply), jax.local_device_count()

    def spread(params, batch):
        del params  # the copies are on the devices
        count = len(jax.tree.leaves(batch)[0])
        full = np.resize(np.arange(count), -(-count // devices) * devices)
        found = mapped(replicated, jax.tree.map(lambda x: x[full].reshape(devices, -1, *x.shape[1:]), batch))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)

    return spread


def gather_rows(mine: np.ndarray, total: int) -> np.ndarray:
    """Returns rows [total, ...] on every process, of which process p of n gives p, p + n, p + 2 n, ..."""
    count = jax.process_count()
    if count == 1:
        return mine
    padded = np.zeros((-(-total // count), *mine.shape[1:]), mine.dtype)
    padded[: len(mine)] = mine
    gathered = np.asarray(multihost_utils.process_allgather(padded))  # [processes, rows, ...]
    return gathered.swapaxes(0, 1).reshape(-1, *mine.shape[1:])[:total]


def barrier(name: str) -> None:
    """Waits until every process is here; `name` must be the same on all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def on_first_process(function: Callable[..., T]) -> Callable[..., T | None]:
    """Lets the first process alone call a function, while the others wait; they get None."""

    @functools.wraps(function)
    def alone(*arguments, **keywords):
        result = function(*arguments, **keywords) if jax.process_index() == 0 else None
        barrier(function.__qualname__)
        return result

    return alone


def gather(value: Any) -> list[Any]:
    """Returns the JSON value of every process, in order, on every process."""
    if jax.process_count() == 1:
        return [value]
    mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(mine)))
    padded = multihost_utils.process_allgather(np.pad(mine, (0, int(sizes.max()) - len(mine))))
    return [json.loads(bytes(row[:size])) for row, size in zip(np.asarray(padded), sizes, strict=True)]


def check_same(values: dict[str, Any]) -> None:
    """Compares named values over all processes, before the first of them waits for another in vain.

    Raises:
        UserError: on every process, if some process has another value.
    """
    if jax.process_count() == 1:
        return
    digests = np.stack(
        [np.frombuffer(hashlib.sha256(repr(value).encode()).digest()[:8], np.uint32) for value in values.values()]
    )
    gathered = np.asarray(multihost_utils.process_allgather(digests))  # [processes, values, 2]
    for i, (name, value) in enumerate(values.items()):
        others = [process for process, found in enumerate(gathered[:, i]) if np.any(found != gathered[0, i])]
        if others:
            raise UserError(
                f"{name}={value!r} on process {jax.process_index()} is not the same on all: process {others[0]} differs from "
                "process 0; give the same command on every host"
            )


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Ends all processes with one line when one of them raises; without it the others would wait for that one in vain.

    The process that raises goes on with its exception. The others leave at once, with status 2, wherever they are.
    """
    if jax.process_count() == 1:
        yield
        return
    client, own = distributed.global_state.client, f"{_ENDED}{jax.process_index()}"
    done, leaving = threading.Event(), threading.Lock()  # one thread of a process ends it

    def watch():
        while not done.wait(0.5):
            reasons = [reason for _, reason in client.key_value_dir_get(_ENDED) if reason]
            if reasons and leaving.acquire(blocking=False):
                client.key_value_set(own, "")
                print(f"error: {reasons[0]}", file=sys.stderr)
                _leave(2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        leaving.acquire()
        is_users = isinstance(error, UserError)
        said = str(error) if is_users else f"it was ended by {type(error).__name__}, see its output"
        client.key_value_set(own, f"process {jax.process_index()}: {said}")
        deadline = time.monotonic() + _PATIENCE
        while len(client.key_value_dir_get(_ENDED)) < jax.process_count() and time.monotonic() < deadline:
            time.sleep(0.1)
        # Last in, first out: this comes before jax's own, which waits minutes for the processes that have left.
        atexit.register(_leave, 2 if is_users else 130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    else:
        done.set()
        watcher.join()


def _leave(status):
    """Ends this process without waiting for the others."""
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:  # it holds the store, and the end of that would abort the others
        time.sleep(3.0)
    os._exit(status)


def _local_sharding() -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: Any) -> Any:
    """Puts a copy of every leaf on each local device: [...] -> [local devices, ...], the layout of pmap."""
    sharding, count = _local_sharding(), jax.local_device_count()
    return jax.tree.map(lambda x: jax.device_put(jnp.broadcast_to(x, (count, *jnp.shape(x))), sharding), tree)


def replicated_sharding() -> NamedSharding:
    """Returns the layout of a global array of which each device of each process holds a copy."""
    return NamedSharding(Mesh(np.asarray(jax.devices()), (AXIS,)), PartitionSpec())


def as_global(tree: Any) -> Any:
    """Copies the replicas of a tree, on their devices, into global arrays: [local devices, ...] -> [...].

    The copies outlive a donation of the tree, and show a writer that all processes hold the same values.
    """
    sharding = replicated_sharding()

    def gathered(x):
        copies = [shard.data.squeeze(0) for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(copies[0].shape, sharding, copies)

    return jax.tree.map(gathered, tree)


def on_every_device(x: jax.Array) -> jax.Array:
    """Copies one array to each local device; its shape stays."""
    return jax.device_put(x, NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec()))


def first_replica(tree: Any) -> Any:
    """Returns the first local device's copy, on that device; reading a shard costs a thousandth of indexing with x[0]."""
    return jax.tree.map(lambda x: x.addressable_shards[0].data.squeeze(0), tree)


def shard(iterator: Iterator[Any]) -> Iterator[Any]:
    """Moves each batch to the local devices, one batch ahead of its use: [b, ...] -> [local devices, b / local devices, ...].

    A batch is a pytree of arrays with the same first axis.
    """
    sharding, count = _local_sharding(), jax.local_device_count()

    def put(batch):
        return jax.device_put(jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch), sharding)

    ahead = put(next(iterator))
    for batch in iterator:
        current, ahead = ahead, put(batch)
        yield current
