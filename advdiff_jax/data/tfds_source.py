"""Prepared TFDS data sets, read without TensorFlow: array_record shards with random access, decoded here."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from advdiff_jax.data.fingerprint import of_files
from advdiff_jax.errors import NotPrepared, UserError


class TfdsImages:
    """Encoded images of a prepared split, from its feature `image`, as `records.Records`.

    Args:
        name: TFDS name, `builder` or `builder/config`.
        split: TFDS split, slices allowed: "train", "train[:10%]".
        data_dir: TFDS's data_dir; empty: TFDS's own default ($TFDS_DATA_DIR or ~/tensorflow_datasets).

    Raises:
        UserError: TFDS has no such data set or split, or the data set has no feature `image`.
        NotPrepared: the data set is missing on disk, or is in a format without random access.
    """

    def __init__(self, name: str, split: str, data_dir: str | pathlib.Path = ""):
        # Imported here: it takes a second, and other sources do not need it.
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        self._arguments = name, split, data_dir
        builder = open_builder(name, data_dir)
        if not pathlib.Path(builder.data_dir).exists():
            raise NotPrepared(f"config.data.tfds_name={name!r} is not prepared: {builder.data_dir} is missing")
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        if "array_record" not in formats:
            found = " and ".join(sorted(formats))
            raise NotPrepared(
                f"config.data.tfds_name={name!r} is not prepared: {builder.data_dir} holds {found} files, which have no "
                "random access"
            )
        if "image" not in builder.info.features:
            raise UserError(f"config.data.tfds_name={name!r} has no feature `image`: set a data set of images")
        try:
            self._source = builder.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
            )
            self._length = len(self._source)
        except ValueError as error:
            known = ", ".join(builder.info.splits)
            raise UserError(
                f"config.data.split={split!r} is not a split of {name} ({error}): set one of {known}, or a slice of one"
            ) from error
        self._example, self._folder = tf_example_pb2.Example, pathlib.Path(builder.data_dir)
        self.has_labels = "label" in builder.info.features

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [features["image"].bytes_list.value[0] for features in self._features(indices)]

    def labels(self) -> np.ndarray:
        """Returns the feature `label` of every example, [N] int64, for a set that `has_labels`."""
        return np.array([features["label"].int64_list.value[0] for features in self._features(range(len(self)))])

    def _features(self, indices):
        # The reader raises several types for a shard that is damaged or has vanished.
        try:
            records = self._source.__getitems__(list(indices))
        except (RuntimeError, ValueError, LookupError) as error:
            raise OSError(f"reading {self._folder} failed: {' '.join(str(error).split())[:200]}") from error
        return [self._example.FromString(record).features.feature for record in records]

    def name(self, index: int) -> str:
        name, split, _ = self._arguments
        return f"{index} of {name}, split {split}"

    def fingerprint(self) -> dict:
        """Returns the set's name, version and split, and `fingerprint.of_files` of its shards, without their times."""
        name, split, _ = self._arguments
        shards = {path.name: (path.stat().st_size, 0) for path in sorted(self._folder.glob("*array_record*"))}
        return of_files(shards, f"tfds {name} {self._folder.name}, split {split}, {len(self):,} examples")

    def __reduce__(self):
        return TfdsImages, self._arguments  # a worker process opens the files itself


def open_builder(name: str, data_dir: str | pathlib.Path):
    """Returns the TFDS builder of a data set, prepared or not; raises UserError if TFDS has no such data set."""
    import tensorflow_datasets as tfds

    place = pathlib.Path(os.path.expanduser(data_dir)) if str(data_dir) else None
    try:
        return tfds.builder(name, data_dir=place)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"config.data.tfds_name={name!r} is not in TFDS ({reason}): set the name of a TFDS data set") from error
