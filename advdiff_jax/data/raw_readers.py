"""Generators of TFDS examples from raw archives, where the builder's own need TensorFlow or more files than the images do."""

import contextlib
import io
import logging
import math
import pathlib
import struct

import numpy as np

from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)


def _celeba(read, file_id, downloaded_dirs, downloaded_images):
    """Yields the builder's own examples, or images alone if one of the lists of `OPTIONAL` is missing."""
    partition = pathlib.Path(downloaded_dirs["list_eval_partition"])
    splits = dict(line.split() for line in partition.read_text().splitlines() if len(line.split()) == 2)
    if splits.keys() != downloaded_images.keys():
        raise UserError(
            f"{partition} names {len(splits):,} images, and img_align_celeba.zip holds {len(downloaded_images):,}: download "
            "both again"
        )
    if all(pathlib.Path(path).is_file() for path in downloaded_dirs.values()):
        yield from read(file_id, downloaded_dirs, downloaded_images)
        return
    for name, split in splits.items():
        if int(split) == file_id:
            yield name, {"image": downloaded_images[name]}


def _cifar10(read, prefix, paths):
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


def _lsun(read, extracted_dir, file_path):
    """Yields the builder's own keys and ids from an lmdb of encoded images."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError("preparing LSUN needs lmdb: pip install 'advdiff_jax[prepare]'") from error

    path = pathlib.Path(extracted_dir) / file_path
    if not (path / "data.mdb").exists():
        raise UserError(f"{path.name}.zip holds no {file_path}/data.mdb: download it again")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        with contextlib.closing(environment), environment.begin() as transaction:
            for index, (key, value) in enumerate(transaction.cursor()):
                yield index, {"id": key.decode(), "image": io.BytesIO(value)}
    except lmdb.Error as error:
        raise UserError(f"{path.name}.zip holds a damaged lmdb ({error}): download it again") from error


def _mnist(read, num_examples, data_path, label_path):
    """Yields the builder's own keys and examples from idx files: a big-endian header, then one byte a value."""
    images, labels = _idx(data_path, 3), _idx(label_path, 1)
    if len(images) != len(labels):
        raise UserError(
            f"{pathlib.Path(data_path).name} holds {len(images):,} images, and {pathlib.Path(label_path).name} {len(labels):,} "
            "labels: download both again"
        )
    if len(images) != num_examples:
        name = pathlib.Path(data_path).name
        log.warning("%s holds %s images, and TFDS knows %s", name, f"{len(images):,}", f"{num_examples:,}")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield index, {"image": image[..., None], "label": label}


def _idx(path, dimensions):
    """Reads an idx file of bytes with this number of axes (LeCun's format)."""
    path = pathlib.Path(path)
    data = path.read_bytes()
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < 4 + 4 * dimensions:
        raise UserError(f"{path.name} is not an idx file of bytes with {dimensions} axes: download the archive again")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    found, wanted = len(data) - 4 - 4 * dimensions, math.prod(shape)
    if found != wanted:
        raise UserError(f"{path.name} is damaged: it holds {found:,} values of {wanted:,}; download the archive again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


# Builder -> generator of its examples, whose first argument is the builder's own.
READERS = {"cifar10": _cifar10, "lsun": _lsun, "celeb_a": _celeba, "fashion_mnist": _mnist, "mnist": _mnist, "kmnist": _mnist}
# Builder -> files that its images do not need.
OPTIONAL = {"celeb_a": ("list_attr_celeba.txt", "list_landmarks_align_celeba.txt", "identity_CelebA.txt")}
