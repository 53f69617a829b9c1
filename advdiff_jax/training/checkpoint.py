"""Orbax checkpoints, verified when they are read.

Orbax restores a flipped byte, a wrong dtype or a half-written array without an error, so each checkpoint carries a
checksum per leaf (over bytes, shape and dtype). A checkpoint that fails is set aside, and the newest good one is used.
"""

import collections
import contextlib
import errno
import logging
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.training import parallel
from advdiff_jax.training.state import create

log = logging.getLogger(__name__)


# Field of the state -> the name under which earlier versions saved it.
OLD_FIELDS = {"noise_floor": "levels"}
# What a full or lost disk says, in whatever exception; others are bugs.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ESTALE)


class Restored(NamedTuple):
    """A verified checkpoint: the state as host arrays, and the JSON values saved beside it."""

    state: Any
    meta: dict[str, Any]


def _names(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _checksums(host_state: Any) -> dict[str, str]:
    """Returns name -> "crc32 dtype shape" of every leaf."""
    return {
        name: f"{zlib.crc32(np.ascontiguousarray(leaf)):08x} {leaf.dtype} {list(leaf.shape)}"
        for name, leaf in zip(_names(host_state), jax.tree.leaves(host_state), strict=True)
    }


class _Meta(dict):
    """JSON values with the checksums of a state, computed when Orbax writes the JSON, which it does in the background."""

    def __init__(self, values: dict[str, Any], state: Any):
        super().__init__(values, checksums=None)
        self._state = state

    def items(self):
        local = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), self._state)
        return {**self, "checksums": _checksums(local)}.items()


def _as_saved(like: Any, saved: dict[str, Any]) -> Any:
    """Returns `like` in the layout of the checkpoint whose leaves are named in `saved`: its field names and its averages."""
    if not like.more_ema:  # a reader takes what there is
        count = len({leaf.partition("]")[0] for leaf in saved if leaf.startswith(".more_ema[")})
        like = like._replace(more_ema=(like.ema_params,) * count)
    old = {new: name for new, name in OLD_FIELDS.items() if any(leaf.startswith(f".{name}.") for leaf in saved)}
    return _without_empty(like, old)


def _without_empty(state: Any, old: dict[str, str]) -> Any:
    """Returns `state` with some fields under `old` names, and without `more_ema` if it is empty, as earlier versions save."""
    fields = {old.get(name, name): value for name, value in state._asdict().items() if name != "more_ema" or value}
    return collections.namedtuple("Saved", fields)(**fields)


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Says whether the run in `workdir` has saved a checkpoint, good or damaged."""
    return any(child.name.isdigit() for child in (workdir / "checkpoints").glob("*"))


def restore_latest(
    workdir: pathlib.Path, init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation
) -> Restored:
    """Restores the newest good checkpoint of the run in `workdir`; raises UserError if there is none."""
    like = jax.eval_shape(lambda: create(init(jax.random.key(0)), optimizer))
    checkpointer = Checkpointer(workdir / "checkpoints", read_only=True)
    restored = checkpointer.restore(like)
    checkpointer.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint: train first (--mode=train)")
    return restored


class Checkpointer:
    """Saves and restores the state of a run under `directory`.

    Args:
        directory: absolute path, created if missing.
        keep: how many checkpoints to keep.
        keep_every: checkpoints of steps that this divides are kept for ever, too; 0: none.
        read_only: change nothing in `directory`.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2, keep_every: int = 0, read_only: bool = False):
        self._directory, self._read_only = directory, read_only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every or None, create=not read_only, read_only=read_only
        )
        self._manager = ocp.CheckpointManager(directory, options=options)
        self._is_saving = False

    def save(self, replicated_state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background, under the state's own step; a step already saved is left unchanged.

        The caller waits until the state is copied to the host, and for a save that is still under way. Checksums and the
        writing of files wait for nobody, and hold a copy of the state on the device until the checksums are there.

        Args:
            replicated_state: a `TrainState` as `parallel.replicate` lays it out.
            meta: JSON values to save beside it.

        Raises:
            UserError: the disk is too full, or the save before has failed for the disk's sake.
        """
        step = int(parallel.first_replica(replicated_state.step))
        if step in self._manager.all_steps():
            return
        state = parallel.as_global(_without_empty(replicated_state, {}))
        self._check_disk(step, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(_Meta(meta, state)))
        with self._disk_errors():  # also those of the save before, for which this waits
            self._manager.save(step, args=args)
        self._is_saving = True

    def check(self) -> None:
        """Raises UserError if a save in the background has failed for the disk's sake; costs a microsecond."""
        if self._is_saving and not self._manager.is_saving_in_progress():
            self._is_saving = False
            with self._disk_errors():
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _disk_errors(self):
        try:
            yield
        except Exception as error:  # Orbax reports a full disk as ValueError, OSError or bare Exception
            reasons = [os.strerror(number) for number in _DISK_ERRORS if os.strerror(number) in str(error)]
            if not reasons:
                raise
            good = self._manager.all_steps(read=True)
            raise UserError(
                f"a checkpoint was not saved in {self._directory} ({reasons[0]}): make room there, or mend the disk, and run "
                f"the same command again; it resumes from step {max(good, default=0)}"
            ) from error

    def latest_step(self) -> int | None:
        """Returns the newest step of which there is a checkpoint, or None."""
        return self._manager.latest_step()

    def _check_disk(self, step: int, size: int) -> None:
        """Raises UserError now for a disk that the save in the background would fill."""
        free = shutil.disk_usage(self._directory).free
        if free < 1.1 * size:
            raise UserError(
                f"the disk of {self._directory} has {free / 1e6:.0f} MB free, and the checkpoint of step {step} needs "
                f"{size / 1e6:.0f} MB: make room and run the same command again; it resumes from step "
                f"{self._manager.latest_step() or 0}"
            )

    def restore(self, like: Any) -> Restored | None:
        """Restores the newest checkpoint that passes verification; returns None if there are no checkpoints.

        Args:
            like: a state with the expected structure, shapes and dtypes.

        Raises:
            UserError: there are checkpoints, but all are damaged or of another network.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        problems = []
        for step in steps:
            try:
                restored = self._restore_step(step, like)
            # Orbax reports damage by many exception types, some of them bare Exception; each makes this step unusable.
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                problems.append(f"step {step}: {reason[:160]}")
                log.warning("checkpoint %s/%d is unusable (%s); trying an older one", self._directory, step, reason[:160])
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
        current, like = type(like), _as_saved(like, meta["checksums"])
        expected = {name: value.split(" ", 1)[1] for name, value in meta["checksums"].items()}
        wanted = {
            name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in zip(_names(like), jax.tree.leaves(like), strict=True)
        }
        if expected != wanted:
            differing = sorted(name for name in expected.keys() | wanted.keys() if expected.get(name) != wanted.get(name))
            raise InvalidArgument(f"it is of another network or optimiser: {differing[0]} and {len(differing) - 1} more differ")
        sharding = parallel.replicated_sharding()
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
        host = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), state)
        found = _checksums(host)
        damaged = [name for name in found if found[name] != meta["checksums"][name]]
        if damaged:
            raise InvalidArgument(f"checksum mismatch in {damaged[0]} and {len(damaged) - 1} more arrays")
        floats = ((name, leaf) for name, leaf in zip(found, jax.tree.leaves(host), strict=True) if leaf.dtype.kind in "fV")
        if infinite := [name for name, leaf in floats if not np.all(np.isfinite(leaf.astype(np.float32)))]:
            raise InvalidArgument(f"values that are not finite in {infinite[0]} and {len(infinite) - 1} more arrays")
        return Restored(current(*host), meta)

    def _set_aside(self, steps: list[int]) -> None:
        """Renames damaged steps, so that nothing is lost and training can write good ones in their place."""
        if self._read_only or jax.process_index() != 0:
            return
        for step in steps:
            (self._directory / str(step)).rename(self._directory / f"{step}.damaged")
        if steps:
            self._manager.reload()

    def close(self) -> None:
        """Waits for saves under way, then closes."""
        with self._disk_errors():
            self._manager.wait_until_finished()
            self._manager.close()
