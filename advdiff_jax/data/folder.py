"""Pictures that lie about as files: a folder of PNG, JPEG or WebP at any depth, or an array in an .npy or .npz file."""

import concurrent.futures
import hashlib
import json
import logging
import os
import pathlib
import zipfile
from collections import Counter
from collections.abc import Sequence

import numpy as np

from advdiff_jax.data.records import Pictures, decode, fit
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Files:
    """Files as `records.Records`."""

    def __init__(self, root: pathlib.Path, paths: Sequence[str]):
        self._root, self._paths = root, tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [(self._root / self._paths[index]).read_bytes() for index in indices]

    def name(self, index: int) -> str:
        return str(self._root / self._paths[index])


def picture_folder(
    path: str, size: int, channels: int, crop: int = 0, on_bad: str = "fail", cache_dir: pathlib.Path | None = None
) -> Pictures:
    """Every PNG, JPEG and WebP under a folder, in the order of their names; folders inside are no classes.

    Each picture is decoded once before training, so that a damaged one is known (named and counted) before hours are
    spent; the finding is kept in `cache_dir` and holds until a file changes.

    Args:
        path: the folder.
        size: side in pixels after crop and resize.
        channels: 1 (grey) or 3 (RGB); pictures of other modes are converted.
        crop: see `records.fit`.
        on_bad: "fail" or "skip" damaged pictures.
        cache_dir: where the finding is kept; None: nowhere.

    Raises:
        UserError: no such folder, no pictures in it, or damaged ones that are not to be skipped.
    """
    root = pathlib.Path(path).expanduser().absolute()
    if not path or not root.is_dir():
        raise UserError(f"config.data.path={path!r} is not a folder: name one that holds PNG, JPEG or WebP files")
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    names = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(
            f"{root} holds no picture ({len(files)} files, none of them {', '.join(SUFFIXES)}): name another config.data.path"
        )
    if others := sorted(set(files) - set(names)):
        log.warning("%s: %d files are no pictures and are ignored: %s", root, len(others), _some(others))
    checked = _check(root, names, cache_dir)
    bad = {name: finding[1] for name, finding in checked.items() if finding[0] == "bad"}
    if bad:
        named = _some([f"{name} ({reason})" for name, reason in bad.items()])
        if on_bad != "skip":
            raise UserError(
                f"{len(bad)} of {len(names):,} pictures under {root} cannot be used: {named}; repair or remove them, or "
                "pass over them with --config.data.on_bad_picture=skip"
            )
        log.warning("%s: %d of %d pictures are skipped: %s", root, len(bad), len(names), named)
    good = [name for name in names if name not in bad]
    if not good:
        raise UserError(f"none of the {len(names):,} pictures under {root} can be read: {named}")
    _tell_mixture(root, [checked[name][1:] for name in good], size, channels)
    return Pictures(Files(root, good), size, channels, crop, on_bad)


def _some(names, count=5):
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _tell_mixture(root, sizes_and_modes, size, channels):
    modes = Counter(mode for _, _, mode in sizes_and_modes)
    widths, heights, _ = zip(*sizes_and_modes, strict=True)
    log.info(
        "%s: %d pictures of %dx%d to %dx%d pixels (%s), cropped and resized to %dx%dx%d",
        *(root, len(sizes_and_modes), min(widths), min(heights), max(widths), max(heights)),
        *(", ".join(f"{count} {mode}" for mode, count in modes.most_common()), size, size, channels),
    )
    if small := sum(min(width, height) < size for width, height, _ in sizes_and_modes):
        log.warning("%s: %d pictures are smaller than %d pixels and are enlarged", root, small, size)


def _check(root, names, cache_dir):
    """name -> ["bad", reason] or [..., width, height, mode] for every file, from the cache if no file has changed."""
    stamp = hashlib.sha256()
    for name in names:
        status = (root / name).stat()
        stamp.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    kept = None if cache_dir is None else cache_dir / f"pictures-{stamp.hexdigest()[:16]}.json"
    try:
        if kept is not None:
            return json.loads(kept.read_text())
    except (OSError, ValueError):
        pass  # not checked yet, or an unreadable finding: check (again)
    log.info("%s: looking at %d pictures, once", root, len(names))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(names, pool.map(lambda name: _look(root / name), names), strict=True))
    try:
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(found))
            partial.replace(kept)
    except OSError as error:
        log.warning("the check of %s is not kept: %s", root, error)
    return found


def _look(path):
    try:
        image = decode(path.read_bytes())
        fit(image, 1, 3)
        return ["good", *image.size, image.mode]
    except (OSError, ValueError) as error:
        return ["bad", str(error)]


class Mapped:
    """An .npy file as a data set (see `wire`), mapped and not read: it may be larger than the memory.

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


def picture_array(path: str, size: int, channels: int) -> Mapped | np.ndarray:
    """uint8 pictures [N, size, size, channels] from an .npy file (mapped), or from an .npz (its first such array, read).

    Args:
        path: the file.
        size: side in pixels that the pictures must have.
        channels: channels that they must have.

    Raises:
        UserError: no such file, or no such array in it.
    """
    file = pathlib.Path(path).expanduser()
    try:
        if file.suffix == ".npy":
            arrays = {file.name: Mapped(file.absolute())}
        else:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"config.data.path={path!r} cannot be read as .npz or .npy ({error}): name another file") from error
    for array in arrays.values():
        if array.dtype == np.uint8 and array.shape[1:] == (size, size, channels) and len(array):
            return array
    found = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    raise UserError(
        f"{file} holds no uint8 array [N, {size}, {size}, {channels}] (it holds {found or 'nothing'}): set config.data.size "
        "and config.data.channels to what it holds, or name another --config.data.path"
    )
