"""Identifies a data set, so that a run goes on with the data it began with, and says what differs if it does not."""

import hashlib
from typing import Any

import numpy as np

from advdiff_jax.data.file_kinds import shown
from advdiff_jax.data.pixels import Examples, evenly_spaced_indices

LISTED = 100_000  # files of which a fingerprint keeps names, so that a difference can name them
SAMPLED = 2**28  # bytes of an array that are hashed whole; of a larger one, that many evenly spaced


def of(examples: Examples) -> dict[str, Any]:
    """Returns the fingerprint of a data set, as JSON values.

    Files have their names, sizes and times of the last change; a prepared TFDS set its name, version and shards; arrays their
    shape, dtype and a hash.

    Args:
        examples: a data set (see `pixels`), before any corruption.
    """
    own = getattr(examples, "fingerprint", None)
    return own() if own else of_array(examples)


def of_array(examples: Examples) -> dict[str, Any]:
    """Returns the fingerprint of an array: shape, dtype, and SHA-256 of its values, of evenly spaced ones if it is large."""
    size = int(np.prod(examples.shape)) * np.dtype(examples.dtype).itemsize
    count = len(examples) if size <= SAMPLED else max(1, len(examples) * SAMPLED // size)
    digest = hashlib.sha256()
    for part in np.array_split(evenly_spaced_indices(len(examples), count), max(1, count // 1024)):
        digest.update(np.ascontiguousarray(examples[part]))
    return {
        "kind": "array",
        "shape": list(examples.shape),
        "dtype": np.dtype(examples.dtype).name,
        "sha256": digest.hexdigest(),
    }


def of_files(files: dict[str, tuple[int, int]], kind: str = "files") -> dict[str, Any]:
    """Returns the fingerprint of files.

    Args:
        files: name -> (bytes, time of the last change in ns).
        kind: what holds them; sets of different kinds differ.
    """
    digest = hashlib.sha256()
    for name, (size, mtime_ns) in sorted(files.items()):
        digest.update(f"{name}\0{size}\0{mtime_ns}\n".encode(errors="surrogateescape"))
    found = {
        "kind": kind,
        "count": len(files),
        "bytes": sum(size for size, _ in files.values()),
        "sha256": digest.hexdigest(),
    }
    return found | ({"files": {name: list(stamp) for name, stamp in sorted(files.items())}} if len(files) <= LISTED else {})


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Says in one line how two fingerprints differ; "" if they do not."""
    if before == now:
        return ""
    masks = ["the masks have changed"] if before.get("masks") != now.get("masks") else []
    if "files" in before and "files" in now and before["kind"] == now["kind"]:
        return ", ".join(filter(None, [_files_difference(before["files"], now["files"]), *masks]))
    keys = [key for key in {**before, **now} if key not in ("files", "sha256", "masks") and before.get(key) != now.get(key)]
    changed = [*(f"{key}: {before.get(key)} then, {now.get(key)} now" for key in keys), *masks]
    return ", ".join(changed) or "the same numbers, other contents"


def _files_difference(before, now):
    common = before.keys() & now.keys()
    parts = {
        "added": now.keys() - before.keys(),
        "removed": before.keys() - now.keys(),
        "of another size": {name for name in common if before[name][0] != now[name][0]},
        "changed since": {name for name in common if before[name][0] == now[name][0] and before[name] != now[name]},
    }
    return ", ".join(f"{len(names):,} {what} ({_some(names)})" for what, names in parts.items() if names)


def _some(names, count=3):
    first = ", ".join(map(shown, sorted(names)[:count]))
    return first + (", ..." if len(names) > count else "")
