"""Image files: a folder of PNG, JPEG or WebP files at any depth, or an array in an .npy or .npz file."""

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

from advdiff_jax.data.records import Images, decode, fit
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Files:
    """Image files under a folder, as `records.Records`."""

    def __init__(self, root: pathlib.Path, paths: Sequence[str]):
        self._root, self._paths = root, tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [(self._root / self._paths[index]).read_bytes() for index in indices]

    def name(self, index: int) -> str:
        return str(self._root / self._paths[index])


def image_folder(
    path: str, size: int, channels: int, crop: int = 0, on_bad: str = "fail", cache_dir: pathlib.Path | None = None
) -> Images:
    """Opens all PNG, JPEG and WebP files under a folder, sorted by path; subfolders are not classes.

    Decodes each image once before training, so that damaged images are named and counted before hours are spent. The
    findings are cached in `cache_dir` until a file changes.

    Args:
        path: the folder.
        size: side in pixels after crop and resize.
        channels: 1 (grey) or 3 (RGB); images of other modes are converted.
        crop: side in pixels of the centred square to keep, see `records.fit`.
        on_bad: "fail" raises an error for damaged images, "skip" leaves them out.
        cache_dir: folder of the cached findings; None does not cache them.

    Raises:
        UserError: the folder is missing, holds no image, or holds damaged images and `on_bad` is "fail".
    """
    root = pathlib.Path(path).expanduser().absolute()
    if not path or not root.is_dir():
        raise UserError(f"config.data.path={path!r} is not a folder: set a folder of PNG, JPEG or WebP files")
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    names = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not names:
        raise UserError(
            f"config.data.path={path!r} holds no image ({len(files)} files, none of them {', '.join(SUFFIXES)}): "
            "set another folder"
        )
    if others := sorted(set(files) - set(names)):
        log.warning("%s: %d other files are ignored: %s", root, len(others), _listed(others))
    checked = _check_images(root, names, cache_dir)
    bad = {name: finding[1] for name, finding in checked.items() if finding[0] == "bad"}
    if bad:
        named = _listed([f"{name} ({reason})" for name, reason in bad.items()])
        if on_bad != "skip":
            raise UserError(
                f"config.data.path={path!r}: {len(bad)} of {len(names):,} images are unusable: {named}; repair or remove "
                "them, or set --config.data.on_bad_image=skip"
            )
        log.warning("%s: %d of %d images are skipped: %s", root, len(bad), len(names), named)
    good = [name for name in names if name not in bad]
    if not good:
        raise UserError(f"config.data.path={path!r} holds {len(names):,} images, all unusable: {named}; set another folder")
    _log_summary(root, [checked[name][1:] for name in good], size, channels)
    return Images(Files(root, good), size, channels, crop, on_bad)


def _listed(names, count=5):
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _log_summary(root, sizes_and_modes, size, channels):
    modes = Counter(mode for _, _, mode in sizes_and_modes)
    widths, heights, _ = zip(*sizes_and_modes, strict=True)
    log.info(
        "%s: %d images of %dx%d to %dx%d pixels (%s), cropped and resized to %dx%dx%d",
        *(root, len(sizes_and_modes), min(widths), min(heights), max(widths), max(heights)),
        *(", ".join(f"{count} {mode}" for mode, count in modes.most_common()), size, size, channels),
    )
    if small := sum(min(width, height) < size for width, height, _ in sizes_and_modes):
        log.warning("%s: %d images are smaller than %d pixels and are enlarged", root, small, size)


def _check_images(root, names, cache_dir):
    """Returns name -> ["bad", reason] or ["good", width, height, mode], from the cache if no file has changed."""
    stamp = hashlib.sha256()
    for name in names:
        status = (root / name).stat()
        stamp.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    cached = None if cache_dir is None else cache_dir / f"images-{stamp.hexdigest()[:16]}.json"
    try:
        if cached is not None:
            return json.loads(cached.read_text())
    except (OSError, ValueError):
        pass  # not checked yet, or unreadable: check (again)
    log.info("%s: decoding %d images once, to find damaged ones", root, len(names))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(names, pool.map(lambda name: _check_image(root / name), names), strict=True))
    try:
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(found))
            partial.replace(cached)
    except OSError as error:
        log.warning("the check of %s is not cached: %s", root, error)
    return found


def _check_image(path):
    try:
        image = decode(path.read_bytes())
        fit(image, 1, 3)
        return ["good", *image.size, image.mode]
    except (OSError, ValueError) as error:
        return ["bad", str(error)]


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


def image_array(path: str, size: int, channels: int) -> Mapped | np.ndarray:
    """Opens uint8 images [N, size, size, channels]: maps an .npy file, or reads the first such array of an .npz file.

    Args:
        path: the file.
        size: side in pixels that the images must have.
        channels: number of channels that the images must have.

    Raises:
        UserError: the file is missing or unreadable, or holds no such array.
    """
    file = pathlib.Path(path).expanduser()
    try:
        if file.suffix == ".npy":
            arrays = {file.name: Mapped(file.absolute())}
        else:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"config.data.path={path!r} is not a readable .npy or .npz file ({error}): set another file") from error
    for array in arrays.values():
        if array.dtype == np.uint8 and array.shape[1:] == (size, size, channels) and len(array):
            return array
    found = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    raise UserError(
        f"config.data.path={path!r} holds no uint8 array [N, {size}, {size}, {channels}] (found: {found or 'no array'}): set "
        "config.data.size and config.data.channels to the size and channels of its images, or set another file"
    )
