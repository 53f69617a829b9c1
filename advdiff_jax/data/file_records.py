"""Files, and members of archives, as records of encoded images (see `records.Records`)."""

import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from advdiff_jax.data.file_kinds import shown
from advdiff_jax.data.fingerprint import of_files
from advdiff_jax.data.listing import Entry, own_path


class Files:
    """Files under a folder, as `records.Records`.

    Args:
        root: the folder.
        entries: the files.
    """

    def __init__(self, root: pathlib.Path, entries: Sequence[Entry]):
        self._root, self._names = root, tuple(entry.name for entry in entries)
        self._stamps = np.array([(entry.size, entry.mtime_ns) for entry in entries], np.int64)  # compact, for a million files

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [self._read(index) for index in indices]

    def name(self, index: int) -> str:
        return shown(str(self._root / self._names[index]))

    def path(self, index: int) -> str:
        """Returns the path of a file under the folder."""
        return self._names[index]

    def head(self, index: int, count: int) -> bytes:
        """Returns the first bytes of a file; raises OSError if it cannot be read."""
        with (self._root / self._names[index]).open("rb") as file:
            return file.read(count)

    def _read(self, index):
        size, mtime_ns = self._stamps[index].tolist()
        with (self._root / self._names[index]).open("rb") as file:
            data = file.read()
            status = os.fstat(file.fileno())
        if len(data) != size:
            raise OSError(f"changed since the start: {size:,} bytes then, {len(data):,} now")
        if status.st_mtime_ns != mtime_ns:
            raise OSError("changed since the start: as many bytes, written anew")
        return data

    def fingerprint(self) -> dict:
        """Returns `fingerprint.of_files` of the files."""
        return of_files(dict(zip(self._names, map(tuple, self._stamps.tolist()), strict=True)))


class Members:
    """Members of zip and tar archives, read in place, as `records.Records`.

    Args:
        root: the folder of the archives.
        entries: the members.
    """

    def __init__(self, root: pathlib.Path, entries: Sequence[Entry]):
        self._root, self._entries = root, tuple(entries)
        self._opened: dict[str, zipfile.ZipFile] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [self._read(self._entries[index]) for index in indices]

    def name(self, index: int) -> str:
        return shown(str(self._root / self._entries[index].name))

    def path(self, index: int) -> str:
        """Returns the path of a member in its archive."""
        return own_path(self._entries[index])

    def fingerprint(self) -> dict:
        """Returns `fingerprint.of_files` of the members."""
        return of_files({entry.name: (entry.size, entry.mtime_ns) for entry in self._entries}, "archives")

    def head(self, index: int, count: int) -> bytes:
        """Returns the first bytes of a member; raises OSError if it cannot be read."""
        return self._read(self._entries[index], count)

    def _read(self, entry, count=None):
        path, wanted = self._root / entry.archive, entry.size if count is None else min(count, entry.size)
        if isinstance(entry.member, int):
            with path.open("rb") as file:
                file.seek(entry.member)
                data = file.read(wanted)
        else:
            try:
                if entry.archive not in self._opened:
                    self._opened[entry.archive] = zipfile.ZipFile(path)
                with self._opened[entry.archive].open(entry.member) as file:
                    data = file.read(count)  # all of it, which also compares the checksum
            except OSError:
                raise
            # Encrypted, damaged, or compressed by a method that Python lacks: RuntimeError, zlib.error, AttributeError, ...
            except Exception as error:
                raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
        if len(data) != wanted:
            raise OSError(f"{shown(entry.archive)} is truncated")
        if path.stat().st_mtime_ns != entry.mtime_ns:
            raise OSError(f"{shown(entry.archive)} has changed since the start")
        return data

    def __reduce__(self):
        return Members, (self._root, self._entries)  # a worker process opens the archives itself
