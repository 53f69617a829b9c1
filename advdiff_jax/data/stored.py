"""A data set of our own on disk: array_record, one example a record, its raw bytes; beside it FILE.json says what it is.

Poisoned training sets are kept so: made once by `--mode=poison`, read at random by whoever trains on them.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from advdiff_jax.data.wire import Examples, spread_indices
from advdiff_jax.errors import UserError


def fingerprint(examples: Examples) -> str:
    """Checksum of 64 evenly spaced examples, with shape and dtype: tells data sets apart."""
    some = np.ascontiguousarray(examples[spread_indices(len(examples), 64)])
    return f"{zlib.crc32(some):08x} {some.dtype} {list(examples.shape)}"


def write(path: pathlib.Path, chunks: Iterable[np.ndarray], shape: tuple[int, ...], about: dict[str, Any]) -> None:
    """Writes a data set, whole or not at all.

    Args:
        path: the file; its folder exists.
        chunks: arrays [n, ...] that make up the data set in order.
        shape: [N, ...] of the whole.
        about: JSON values to keep beside it.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for chunk in chunks:
            dtype = chunk.dtype.str
            for example in chunk:
                writer.write(example.tobytes())
        writer.close()
        path.with_name(path.name + ".json").write_text(json.dumps({"shape": list(shape), "dtype": dtype, **about}, indent=2))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror}): make room, or name another --workdir") from error


class Stored:
    """A data set written by `write`; a data set itself (see `wire`).

    Args:
        path: the array_record file.

    Raises:
        UserError: it is missing, or its description is.
    """

    def __init__(self, path: str | pathlib.Path):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._path = pathlib.Path(path).expanduser()
        try:
            self.about = json.loads(self._path.with_name(self._path.name + ".json").read_text())
            self.shape, self.dtype = tuple(self.about["shape"]), np.dtype(self.about["dtype"])
            self._records = ArrayRecordDataSource(str(self._path))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{str(path)!r} is no data set of ours (an .array_record file with its .json beside it): {error}"
            ) from error
        if len(self._records) != self.shape[0]:
            raise UserError(f"{self._path} holds {len(self._records)} examples and not {self.shape[0]}: make it again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        records = self._records.__getitems__([int(index) for index in indices])
        return np.stack([np.frombuffer(record, self.dtype).reshape(self.shape[1:]) for record in records])

    def __reduce__(self):
        return Stored, (self._path,)  # a worker process opens the file itself
