"""Config -> the data set, clean and as the model sees it."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.corruptions import CORRUPTIONS, build_corruptions, build_one_noise_std, foreign_section
from advdiff_jax.builders.registry import Choice, as_user_error, build, lookup, lookup_all
from advdiff_jax.builders.restored import build_restored
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import corruption, held_out, pixels, sources
from advdiff_jax.errors import NotPrepared, UserError

log = logging.getLogger(__name__)

DIAGNOSED = 1024  # images of a set that is read on the fly, of which the report has statistics


class Stored(NamedTuple):
    """A source, and the dtype in which its training set is stored after corruption."""

    source: sources.Source
    dtype: np.dtype


STORAGES = {
    "source": Choice(lambda c, source: Stored(source, source.train.dtype)),
    "uint8": Choice(lambda c, source: Stored(sources.in_bytes(source), np.dtype(np.uint8))),
    "float": Choice(lambda c, source: Stored(source, np.dtype(np.float32))),
}


class Data(NamedTuple):
    """The clean source, and the training set as the model sees it.

    Attributes:
        source: before any corruption.
        corrupted: the source with its corruption, applied when examples are read.
        train: the training set, [N, ...]; an array if the source is held in memory, else `corrupted`. Of a config with
            `data.restored_by`, its images restored.
        diagnosed: indices [n] of the examples of which reports have statistics; all of those in memory.
        is_corrupted: whether each of them was chosen for corruption, [n].
        held_out: clean examples of the source that training never sees, [n, ...]; None without `data.held_out`.
        held_out_dirty: the same examples under draws of the training set's corruption that no training example has; None
            without `data.held_out`, and under `poison`, which holds no versions of these examples.
        held_out_labels: () -> classes of the held-out examples, [n]; None where they have none.
    """

    source: sources.Source
    corrupted: corruption.CorruptedDataset
    train: pixels.Examples
    diagnosed: np.ndarray
    is_corrupted: np.ndarray
    held_out: pixels.Examples | None = None
    held_out_dirty: pixels.Examples | None = None
    held_out_labels: Callable[[], np.ndarray] | None = None


def build_data(config: ml_collections.ConfigDict) -> Data:
    """Loads and corrupts the data set of a config; raises UserError for a bad value, or data that are missing."""
    try:
        with as_user_error("config.data"):
            source = lookup(SOURCES, config, "data.source").load(config.data)
        source, dtype = build(STORAGES, config, "data.storage", source)
        split = held_out.Split(source, None)
        with as_user_error("config.data"):
            if config.data.held_out:
                split = held_out.hold_out(source, config.data.held_out, config.data.seed)
        source, kept_out = split.source, split.held_out
        corruptions = build_corruptions(config, source.train)
    except NotPrepared as error:
        raise UserError(f"{error}; prepare it: {prepare_command(config)}") from error
    if len(source.train) < pixels.FEWEST:
        raise UserError(
            f"config.data.source={config.data.source} has {len(source.train)} examples, and training needs {pixels.FEWEST} or "
            "more: add some, or set another data set"
        )
    if config.data.flip and len(source.train.shape) != 4:
        raise UserError(f"config.data.flip=True mirrors images, and data.source={config.data.source} has none: set False")
    if config.data.flip:
        log.info("config.data.flip=True: at each visit, every second image is mirrored, left for right")
    if dtype != np.uint8 and len(source.train.shape) == 4 and config.sampling.clip:
        log.warning(
            "config.sampling.clip=%g: the samples end within black and white, and the noise in this training set (float) does "
            "not: set --config.sampling.clip=0 to see all the noise that the model has learnt",
            config.sampling.clip,
        )
    corrupt = functools.partial(
        corruption.CorruptedDataset, fraction=config.data.fraction, corruptions=corruptions, seed=config.data.seed, dtype=dtype
    )
    with as_user_error("config.data"):
        corrupted = corrupt(source.train)
    has_versions = kept_out is not None and "poison" not in config.data.corruptions
    dirty = corrupt(kept_out, first_index=len(corrupted)) if has_versions else None
    diagnosed = pixels.evenly_spaced_indices(len(corrupted), DIAGNOSED if source.on_the_fly else len(corrupted))
    seen = corrupted.read(diagnosed)
    train = build_restored(config, source, corrupted, corrupted if source.on_the_fly else seen.x)
    return Data(source, corrupted, train, diagnosed, seen.is_corrupted, kept_out, dirty, split.labels)


def build_noise_std(config: ml_collections.ConfigDict, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    """Builds indices [n] -> standard deviation of the noise in these training examples [n], for an oracle.

    Raises:
        UserError: the corruption of the config is not one kind of Gaussian noise.
    """
    noise_std = functools.partial(data.corrupted.noise_std, noise_std=build_one_noise_std(config))
    if data.source.on_the_fly:
        return noise_std
    return noise_std(np.arange(len(data.corrupted))).__getitem__  # the examples are in memory, and so is their noise


def least_noise_std(config: ml_collections.ConfigDict) -> float:
    """Returns the smallest standard deviation of the noise in any training example; raises UserError as `build_noise_std`."""
    return build_one_noise_std(config).least if config.data.fraction >= 1.0 else 0.0


def known_noise_std(config: ml_collections.ConfigDict) -> float | None:
    """Returns the standard deviation of the `gaussian` noise in the training set; None where it has none, as added."""
    c = config.data
    known = (
        c.restored_by == "none" and "gaussian" in c.corruptions and c.fraction > 0 and c.chance.gaussian > 0 and c.noise_std > 0
    )
    return float(c.noise_std) if known else None


def _has_foreign(config):
    return any("data.foreign_source" in spec.reads for spec in lookup_all(CORRUPTIONS, config, "data.corruptions").values())


def prepare_command(config: ml_collections.ConfigDict) -> str:
    """Returns the command that prepares the data of a config, with the keys that say which they are."""
    c = config.data
    keys = ["source", *(["tfds_name"] if c.source == "tfds" else []), *(["data_dir"] if c.data_dir else [])]
    if _has_foreign(config):
        keys += ["corruptions", "foreign_source", *(["foreign_tfds_name"] if c.foreign_source == "tfds" else [])]
    options = (f' --config.data.{key}="{c[key]}"' if key == "corruptions" else f" --config.data.{key}={c[key]}" for key in keys)
    return "".join([f"python launch.py --config=configs/{config.name}.py --mode=prepare", *options])


def prepare_data(config: ml_collections.ConfigDict) -> None:
    """Downloads and prepares what `data.source` (and `data.foreign_source`, if it is used) reads; see `data.prepare`."""
    lookup(SOURCES, config, "data.source").prepare(config.data)
    if _has_foreign(config):
        lookup(SOURCES, config, "data.foreign_source").prepare(foreign_section(config.data))
    build_data(config)  # reads it back: damage is reported now
