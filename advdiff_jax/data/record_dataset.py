"""Data sets in array_record files: each record holds the raw bytes of one example, and FILE.json the shape and dtype.

`--mode=poison` writes poisoned training sets in this format; runs that train on them have random access.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from advdiff_jax.data.pixels import Examples, evenly_spaced_indices
from advdiff_jax.errors import UserError


def fingerprint(examples: Examples) -> str:
    """Identifies a data set: returns a checksum of 64 evenly spaced examples, with the shape and dtype of the whole."""
    some = np.ascontiguousarray(examples[evenly_spaced_indices(len(examples), 64)])
    return f"{zlib.crc32(some):08x} {some.dtype} {list(examples.shape)}"


def write(path: pathlib.Path, chunks: Iterable[np.ndarray], shape: tuple[int, ...], about: dict[str, Any]) -> None:
    """Writes a data set atomically: a failure leaves no file at `path`.

    Args:
        path: the file; its folder exists.
        chunks: the examples in order, as arrays [n, ...].
        shape: shape [N, ...] of the whole data set.
        about: further JSON values for FILE.json.

    Raises:
        UserError: writing to the disk fails.
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
        raise UserError(f"writing {path} failed ({error.strerror}): free some space, or set another --workdir") from error


class RecordDataset:
    """Data set (see `pixels`) in a file that `write` wrote.

    Args:
        path: the array_record file.

    Raises:
        UserError: the file or its FILE.json is missing or damaged, or their numbers of examples differ.
    """

    def __init__(self, path: str | pathlib.Path):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._path = pathlib.Path(os.path.expanduser(path))
        try:
            self.about = json.loads(self._path.with_name(self._path.name + ".json").read_text())
            self.shape, self.dtype = tuple(self.about["shape"]), np.dtype(self.about["dtype"])
            self._records = ArrayRecordDataSource(str(self._path))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{str(path)!r} is not a record dataset ({error}): set an .array_record file with its .json file beside it"
            ) from error
        if len(self._records) != self.shape[0]:
            raise UserError(
                f"{self._path} holds {len(self._records)} examples, but its .json file says {self.shape[0]}: write it again"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        records = self._records.__getitems__([int(index) for index in indices])
        return np.stack([np.frombuffer(record, self.dtype).reshape(self.shape[1:]) for record in records])

    def __reduce__(self):
        return RecordDataset, (self._path,)  # a worker process opens the file itself
