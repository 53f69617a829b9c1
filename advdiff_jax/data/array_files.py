"""Arrays in .npy and .npz files: their headers without their data, and the array that is asked for."""

import functools
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from advdiff_jax.data.file_kinds import HEAD, REMEDIES, kind_of
from advdiff_jax.data.listing import os_reason
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import UserError

UNPICKLE = "save one array of numbers, np.save(FILE, np.stack(LIST))"


class Stored(NamedTuple):
    """An array in a file, of which only the header has been read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self):
        return f"{self.name}: {self.dtype.name} {list(self.shape)}"


class Mapped:
    """An .npy file as a data set (see `pixels`), memory-mapped: it may be larger than the memory.

    Args:
        path: the file.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._array = path, np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self._array[indices])

    def __reduce__(self):
        return Mapped, (self._path,)  # a worker process maps the file itself; pickling the array would copy all of it


def open_arrays(path: str, array_key: str = "") -> tuple[list[Stored], Callable[[str], Examples]]:
    """Opens an .npy or .npz file, by its content.

    Args:
        path: the file.
        array_key: name of an array in an .npz file; "": all of them.

    Returns:
        headers of the arrays, and a function name -> the array as a data set: mapped, or read from an .npz file.

    Raises:
        UserError: the file is missing, unreadable or of another kind, holds objects only, or lacks `array_key`.
    """
    file, unreadable = (
        pathlib.Path(os.path.expanduser(path)).absolute(),
        f"config.data.path={path!r} is not a readable .npy or .npz file",
    )
    try:
        with file.open("rb") as opened:
            kind = kind_of(opened.read(HEAD))
    except OSError as error:
        raise UserError(f"{unreadable} ({os_reason(error)}): set another file") from error
    if kind not in ("NumPy array", "zip"):
        remedy = REMEDIES.get(kind, "set another file")
        raise UserError(f"{unreadable}, but {kind}: {remedy}")
    # NumPy raises what it likes for damaged headers, among them SyntaxError and tokenize.TokenError.
    try:
        if kind == "zip":
            stored = _members(file)
            load = functools.partial(_load_member, file)
        else:
            with file.open("rb") as opened:
                stored = [Stored(file.name, *_header(opened))]
            if stored[0].dtype.hasobject:
                raise UserError(f"config.data.path={path!r} holds pickled objects: {UNPICKLE}")
            mapped = Mapped(file)  # compares the size of the file with its header
            load = lambda name: mapped  # noqa: E731
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{unreadable} ({os_reason(error)[:200]}): set another file") from error
    if array_key and kind == "zip":
        known = [array.name for array in stored]
        stored = [array for array in stored if array.name == array_key]
        if not stored:
            raise UserError(f"config.data.array_key={array_key!r} is no array of {path!r}: set one of {', '.join(known)}")
    return stored, load


def _header(opened):
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(opened)
    return shape, dtype


def _members(file):
    stored = []
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if names and not any(name.endswith(".npy") for name in names):
            is_torch = any(name.endswith("data.pkl") for name in names)
            raise UserError(
                f"{str(file)!r} is {'a PyTorch file' if is_torch else 'a zip archive without arrays'}: "
                + ("np.save(FILE, torch.load(NAME).numpy())" if is_torch else "for images, set --config.data.source=folder")
            )
        for name in names:
            if name.endswith(".npy"):
                with archive.open(name) as opened:
                    stored.append(Stored(name.removesuffix(".npy"), *_header(opened)))
    return stored


def _load_member(file, name):
    try:
        with np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except Exception as error:
        raise UserError(f"{file}: its array {name} is damaged ({os_reason(error)[:200]}): set another file") from error
