"""Prepares TFDS data sets as array_record without TensorFlow, from downloads or from raw archives in a folder.

The builders are TFDS's own. This module replaces their uses of TensorFlow: it unpacks archives, reads CIFAR-10's binary
batches and LSUN's lmdb, and encodes arrays as PNG. It converts a data set that is already prepared as TFRecord.
"""

import contextlib
import io
import json
import logging
import os
import pathlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from advdiff_jax.data.tfds_source import open_builder
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> pathlib.Path:
    """Prepares the data set `name` for `tfds_source.TfdsImages`; does nothing if it is prepared.

    Args:
        name: TFDS name, `builder` or `builder/config`.
        data_dir: folder of the prepared data sets; empty: TFDS's default.
        manual_dir: folder of the raw archives under their upstream names; empty downloads them.

    Returns:
        the folder of the prepared data set.

    Raises:
        UserError: an archive is missing or damaged, a download fails, the disk is too small, or lmdb is not installed.
    """
    import tensorflow_datasets as tfds

    builder = open_builder(name, data_dir)
    folder = pathlib.Path(builder.data_dir)
    if folder.exists():
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        return _ready(folder) if "array_record" in formats else convert(folder)
    urls = {url: info for url, info in builder.url_infos.items() if _belongs(builder, url)}
    root = pathlib.Path(builder.data_dir_root)
    # The disk holds the prepared set, the unpacked archives, and the archives themselves if they are downloaded.
    _check_disk(root, (2 if manual_dir else 3) * _size(urls, manual_dir))
    with tempfile.TemporaryDirectory(dir=_created(root), prefix="unpacked-") as scratch, contextlib.ExitStack() as opened:
        original_manager = builder._make_download_manager
        builder._make_download_manager = lambda **kwargs: Archives(
            _local(manual_dir, urls) if manual_dir else original_manager(**kwargs).download, pathlib.Path(scratch), opened
        )
        read = READERS.get(builder.name, builder._generate_examples)
        builder._generate_examples = lambda *args, **kwargs: _encoded(read(*args, **kwargs))
        config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
        try:
            builder.download_and_prepare(download_config=config, file_format="array_record")
        except UserError:
            raise
        # Damaged archives, moved pages, a missing network: each library raises exceptions of its own.
        except (OSError, EOFError, ValueError, KeyError, AssertionError, RuntimeError, tfds.download.DownloadError) as error:
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
    folder = pathlib.Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"config.data.manual_dir={manual_dir!r} is not a folder: set a folder with the raw archives")
    return folder


def _local(manual_dir, urls) -> Callable[[str], pathlib.Path]:
    folder = _existing(manual_dir)

    def fetch(url):
        path = folder / _file_name(url, urls)
        if not path.is_file():
            raise UserError(f"{path} is missing: download it from {url}, or leave out --config.data.manual_dir")
        return path

    return fetch


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
        if not folder.exists():
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


def _cifar10(prefix, paths):
    """Yields the builder's own keys and ids from binary batches: 1 byte of label, then 3 x 32 x 32 of image."""
    index = 0
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if not data.size or data.size % 3073:
            raise UserError(f"{path} is truncated ({data.size} bytes, not a multiple of 3,073): download the archive again")
        for row in data.reshape(-1, 3073):
            image = row[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            yield index, {"id": f"{prefix}{index:05d}", "label": row[0], "image": image}
            index += 1


def _lsun(extracted_dir, file_path):
    """Yields the builder's own keys and ids from an lmdb of encoded images."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError("preparing LSUN needs lmdb: pip install 'advdiff_jax[prepare]'") from error

    path = pathlib.Path(extracted_dir) / file_path
    if not (path / "data.mdb").exists():
        raise UserError(f"{path.name}.zip holds no {file_path}/data.mdb: download it again")
    environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
    with contextlib.closing(environment), environment.begin() as transaction:
        for index, (key, value) in enumerate(transaction.cursor()):
            yield index, {"id": key.decode(), "image": io.BytesIO(value)}


READERS = {"cifar10": _cifar10, "lsun": _lsun}


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
