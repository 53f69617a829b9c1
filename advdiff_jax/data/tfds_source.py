"""Prepared TFDS data sets, read without TensorFlow: array_record shards, random access, our own decoding."""

import pathlib
from collections.abc import Sequence

from advdiff_jax.errors import UserError


class NotPrepared(UserError):
    """The data set is not on disk in a form that can be read; preparing it mends that."""


class TfdsImages:
    """The `image` feature of a prepared split, still encoded, as `records.Records`.

    Args:
        name: TFDS name, `builder` or `builder/config`.
        split: TFDS split, slices allowed: "train", "train[:10%]".
        data_dir: TFDS's data_dir; empty: TFDS's own default ($TFDS_DATA_DIR or ~/tensorflow_datasets).

    Raises:
        UserError: TFDS has no such data set or split, or the set has no `image`.
        NotPrepared: it is not on disk, or in a format without random access.
    """

    def __init__(self, name: str, split: str, data_dir: str | pathlib.Path = ""):
        # A second to import, and only this source needs it.
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        self._arguments = name, split, data_dir
        builder = open_builder(name, data_dir)
        if not pathlib.Path(builder.data_dir).exists():
            raise NotPrepared(f"the data set {name} is not in {builder.data_dir}")
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        if "array_record" not in formats:
            raise NotPrepared(f"{builder.data_dir} holds {' and '.join(sorted(formats))} files, which have no random access")
        if "image" not in builder.info.features:
            raise UserError(f"the TFDS data set {name} has no feature `image`: it cannot be a set of pictures")
        try:
            self._source = builder.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
            )
            self._length = len(self._source)
        except ValueError as error:
            known = ", ".join(builder.info.splits)
            raise UserError(
                f"config.data.split={split!r} of {name} cannot be read ({error}): its splits are {known}"
            ) from error
        self._example = tf_example_pb2.Example

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> list[bytes]:
        records = self._source.__getitems__(list(indices))
        return [self._example.FromString(record).features.feature["image"].bytes_list.value[0] for record in records]

    def name(self, index: int) -> str:
        name, split, _ = self._arguments
        return f"{index} of {name}, split {split}"

    def __reduce__(self):
        return TfdsImages, self._arguments  # a worker process opens the files itself


def open_builder(name: str, data_dir: str | pathlib.Path):
    """The TFDS builder of a data set, prepared or not; raises UserError for a name that TFDS does not know."""
    import tensorflow_datasets as tfds

    place = pathlib.Path(data_dir).expanduser() if str(data_dir) else None
    try:
        return tfds.builder(name, data_dir=place)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"config.data.tfds_name={name!r} is no data set of TFDS ({reason})") from error
