"""Orbax checkpoints that are verified when read.

Orbax restores a flipped byte, a wrong dtype or a half-written array without a word, so each checkpoint carries a
checksum per leaf (over bytes, shape and dtype). A checkpoint that does not match is set aside, the newest good one used.
"""

import logging
import pathlib
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A verified checkpoint: the state as host arrays, and what was saved beside it."""

    state: Any
    meta: dict[str, Any]


def _names(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _checksums(host_state: Any) -> dict[str, str]:
    """name -> "crc32 dtype shape" of every leaf."""
    return {
        name: f"{zlib.crc32(np.ascontiguousarray(leaf)):08x} {leaf.dtype} {list(leaf.shape)}"
        for name, leaf in zip(_names(host_state), jax.tree.leaves(host_state), strict=True)
    }


class Checkpointer:
    """Saves and restores the state of a run under `directory`.

    Args:
        directory: absolute path, made if missing.
        keep: how many checkpoints to keep.
        read_only: never touch what is there.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2, read_only: bool = False):
        self._directory, self._read_only = directory, read_only
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=not read_only, read_only=read_only)
        self._manager = ocp.CheckpointManager(directory, options=options)

    def save(self, replicated_state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background, at the state's own step; a step already saved is left alone.

        Args:
            replicated_state: a `TrainState` as `parallel.replicate` lays it out.
            meta: JSON values to keep beside it.
        """
        host = jax.device_get(parallel.first_replica(replicated_state))
        step = int(host.step)
        if step in self._manager.all_steps():
            return
        # Orbax wants to know that all processes hold the same array: a global, replicated one says so.
        sharding = NamedSharding(Mesh(np.asarray(jax.devices()), (parallel.AXIS,)), PartitionSpec())
        state = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), host)
        meta = {**meta, "checksums": _checksums(host)}
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)))

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that passes verification, or None if there is none at all.

        Args:
            like: a state with the structure, shapes and dtypes expected.

        Raises:
            UserError: there are checkpoints, and all are damaged or of another network.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        problems = []
        for step in steps:
            try:
                restored = self._restore_step(step, like)
            # Orbax reports damage by many types, some of them bare Exception: whatever it is, this step is unusable.
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                problems.append(f"step {step}: {reason[:160]}")
                log.warning("checkpoint %s/%d cannot be used (%s); trying an older one", self._directory, step, reason[:160])
            else:
                self._set_aside([bad for bad in steps if bad > step])
                return restored
        if problems:
            raise UserError(
                f"no usable checkpoint in {self._directory} ({'; '.join(problems)}): restore it from a backup"
                + ("" if self._read_only else ", or remove that folder to train from the start")
            )
        return None

    def _restore_step(self, step: int, like: Any) -> Restored:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        expected = {name: value.split(" ", 1)[1] for name, value in meta["checksums"].items()}
        wanted = {
            name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in zip(_names(like), jax.tree.leaves(like), strict=True)
        }
        if expected != wanted:
            differing = sorted(name for name in expected.keys() | wanted.keys() if expected.get(name) != wanted.get(name))
            raise ValueError(f"it is of another network or optimiser: {differing[0]} and {len(differing) - 1} more differ")
        sharding = NamedSharding(Mesh(np.asarray(jax.devices()), (parallel.AXIS,)), PartitionSpec())
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
        host = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), state)
        found = _checksums(host)
        damaged = [name for name in found if found[name] != meta["checksums"][name]]
        if damaged:
            raise ValueError(f"checksum mismatch in {damaged[0]} and {len(damaged) - 1} more arrays")
        return Restored(host, meta)

    def _set_aside(self, steps: list[int]) -> None:
        """Renames damaged steps, so that training can write good ones in their place and nothing is lost."""
        if self._read_only or jax.process_index() != 0:
            return
        for step in steps:
            (self._directory / str(step)).rename(self._directory / f"{step}.damaged")
        if steps:
            self._manager.reload()

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()
