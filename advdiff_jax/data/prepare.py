"""Prepares TFDS data sets as array_record without TensorFlow, from downloads or from raw archives in a folder.

The builders are TFDS's own. This module replaces their uses of TensorFlow: it unpacks archives, reads CIFAR-10's binary
batches and LSUN's lmdb, and encodes arrays as PNG. It converts a data set that is already prepared as TFRecord.
"""

import contextlib
import functools
import gzip
import io
import json
import logging
import lzma
import os
import pathlib
import shutil
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from advdiff_jax.data import raw_archives, raw_readers
from advdiff_jax.data.tfds_source import open_builder
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, AssertionError, RuntimeError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


def prepare(name: str, data_dir: str = "", manual_dir: str = "", check_archives: bool = True) -> pathlib.Path:
    """Prepares the data set `name` for `tfds_source.TfdsImages`; does nothing if it is prepared.

    Args:
        name: TFDS name, `builder` or `builder/config`.
        data_dir: folder of the prepared data sets; empty: TFDS's default.
        manual_dir: folder of the raw archives under their upstream names; empty downloads them.
        check_archives: compares the archives in `manual_dir` with the sizes and SHA-256 that TFDS knows, before it reads one.

    Returns:
        the folder of the prepared data set.

    Raises:
        UserError: an archive is missing or damaged, a download fails, the disk is too small, or lmdb is not installed.
    """
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(sys.stderr.isatty())  # a log file would get a line for each of its updates
    builder = open_builder(name, data_dir)
    folder = pathlib.Path(builder.data_dir)
    if folder.exists():
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        return _ready(folder) if "array_record" in formats else convert(folder)
    urls = {url: info for url, info in builder.url_infos.items() if _belongs(builder, url)}
    root = pathlib.Path(builder.data_dir_root)
    is_reduced = bool(manual_dir) and _check_manual(builder.name, manual_dir, urls, check_archives)
    # The disk holds the prepared set, the unpacked archives, and the archives themselves if they are downloaded.
    _check_disk(root, (2 if manual_dir else 3) * _size(urls, manual_dir))
    with tempfile.TemporaryDirectory(dir=_created(root), prefix="unpacked-") as scratch, contextlib.ExitStack() as opened:
        original_manager = builder._make_download_manager
        builder._make_download_manager = lambda **kwargs: Archives(
            _local(manual_dir, urls) if manual_dir else original_manager(**kwargs).download, pathlib.Path(scratch), opened
        )
        read = raw_readers.READERS.get(builder.name, lambda read, *args, **kwargs: read(*args, **kwargs))
        read = functools.partial(read, builder._generate_examples)
        if is_reduced:
            builder.info._features = tfds.features.FeaturesDict({"image": builder.info.features["image"]})
        builder._generate_examples = lambda *args, **kwargs: _encoded(read(*args, **kwargs))
        config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
        try:
            builder.download_and_prepare(download_config=config, file_format="array_record")
        except UserError:
            raise
        # Damaged archives, moved pages, a missing network: each library raises exceptions of its own.
        except (*_DAMAGE, tfds.download.DownloadError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise UserError(
                f"config.data.tfds_name={name!r}: preparing it failed ({reason}): check the archives or the network and run "
                f"the command again, or download {', '.join(_file_name(url, urls) for url in urls)} into a folder and set "
                "--config.data.manual_dir"
            ) from error
    return _ready(folder)


def _ready(folder):
    log.info("prepared: %s", folder)
    return folder


def _created(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"creating {folder} failed ({error.strerror}): set another --config.data.data_dir") from error
    return folder


def _check_disk(folder, needed):
    free = shutil.disk_usage(_created(folder)).free
    if needed > free:
        raise UserError(
            f"{folder} needs about {needed / 1e9:.1f} GB of disk and has {free / 1e9:.1f} GB free: free some space, or set "
            "another --config.data.data_dir"
        )


def _belongs(builder, url):
    """Says whether the archive belongs to the builder's config: checksum lists hold the archives of all its configs."""
    config = builder.builder_config
    return config is None or config.name in url


def _file_name(url, urls):
    return (urls[url].filename if url in urls else None) or url.rsplit("/", 1)[-1]


def _size(urls, manual_dir):
    if not manual_dir:
        return sum(info.size for info in urls.values())
    folder = _existing(manual_dir)
    return sum((folder / _file_name(url, urls)).stat().st_size for url in urls if (folder / _file_name(url, urls)).is_file())


def _existing(manual_dir):
    folder = pathlib.Path(os.path.expanduser(manual_dir))
    if not folder.is_dir():
        raise UserError(f"config.data.manual_dir={manual_dir!r} is not a folder: set a folder with the raw archives")
    return folder


def _check_manual(name, manual_dir, urls, check_archives):
    """Checks the archives in a folder; returns whether lists are missing without which only the images are prepared."""
    folder = _existing(manual_dir)
    names = {_file_name(url, urls): (url, info) for url, info in urls.items()}
    optional = raw_readers.OPTIONAL.get(name, ())
    for file, (url, _) in names.items():
        if file not in optional and not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: download it from {url}, or leave out --config.data.manual_dir")
    absent = [file for file in names if not (folder / file).is_file()]
    if absent:
        log.warning("without %s, only the images are prepared", ", ".join(absent))
    if check_archives:
        raw_archives.check(folder, {file: info for file, (_, info) in names.items() if file not in absent})
    return bool(absent)


def _local(manual_dir, urls) -> Callable[[str], pathlib.Path]:
    folder = _existing(manual_dir)

    return lambda url: folder / _file_name(url, urls)


class Archives:
    """A download manager for TFDS builders that unpacks without TensorFlow.

    Args:
        fetch: url -> path of the file.
        scratch: folder for unpacked archives.
        opened: keeps archives open until the end, because builders read files after `iter_archive` has listed them all.
    """

    downloaded_size = 0

    def __init__(self, fetch: Callable[[str], Any], scratch: pathlib.Path, opened: contextlib.ExitStack):
        self._fetch, self._scratch, self._opened = fetch, scratch, opened

    def download(self, urls):
        """Fetches a url, or a list or dictionary of urls; returns the paths in the same structure."""
        return _map(lambda url: pathlib.Path(os.fspath(self._fetch(url))), urls)

    def extract(self, paths):
        """Unpacks archives; returns the folders in the same structure."""
        return _map(self._extract, paths)

    def download_and_extract(self, urls):
        """Fetches and unpacks archives; returns the folders in the same structure."""
        return self.extract(self.download(urls))

    def iter_archive(self, path) -> Iterator[tuple[str, io.BufferedIOBase]]:
        """Yields (name, open file) for each file in an archive, in order."""
        import tensorflow_datasets as tfds

        method = tfds.download.Resource(path=path).extract_method
        file = self._opened.enter_context(io.FileIO(path))
        return tfds.download.iter_archive(file, method)

    def _extract(self, path):
        folder = self._scratch / path.name
        if path.suffix == ".gz" and ".tar" not in path.suffixes:  # a single file, which becomes that file
            folder = self._scratch / path.stem
            with gzip.open(path) as packed, folder.open("wb") as file:
                shutil.copyfileobj(packed, file)
        elif not folder.exists():
            options = {} if path.suffix == ".zip" else {"filter": "data"}
            shutil.unpack_archive(path, folder, **options)
        return folder


def _map(function, tree):
    if isinstance(tree, dict):
        return {name: function(value) for name, value in tree.items()}
    return [function(value) for value in tree] if isinstance(tree, list | tuple) else function(tree)


def _encoded(examples):
    """Encodes arrays as PNG: TFDS would encode them with TensorFlow, but passes encoded files through unchanged."""
    for key, example in examples:
        image = example["image"]
        yield key, {**example, "image": _png(image) if isinstance(image, np.ndarray) else image}


def _png(image):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(image)).save(file, "PNG", compress_level=1)  # decodes faster than the default, 6
    file.seek(0)
    return file


def convert(folder: pathlib.Path) -> pathlib.Path:
    """Rewrites a prepared data set from TFRecord to array_record in place, record by record; deletes TFRecord files last.

    Raises:
        UserError: a shard is truncated, or the disk is too small for a second copy.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    shards = sorted(folder.glob("*.tfrecord*"))
    _check_disk(folder, sum(shard.stat().st_size for shard in shards))
    for shard in shards:
        target = folder / shard.name.replace(".tfrecord", ".array_record")
        partial = target.with_name(f"partial-{target.name}")
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for record in tfrecords(shard):
            writer.write(record)
        writer.close()
        partial.rename(target)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    info["fileFormat"] = "array_record"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(info, indent=2))
    partial.rename(path)  # from here on TFDS reads the set as array_record
    for shard in shards:
        shard.unlink()
    log.info("converted %d shards from TFRecord to array_record", len(shards))
    return _ready(folder)


def tfrecords(path: pathlib.Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file: length (8 bytes), checksum of it (4), data, checksum of it (4).

    Raises:
        UserError: the file ends in the middle of a record.
    """
    with path.open("rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            record, checksum = file.read(length), file.read(4)
            if len(header) < 12 or len(record) < length or len(checksum) < 4:
                raise UserError(f"{path} is truncated: restore it, or remove the folder {path.parent} and prepare it again")
            yield record
