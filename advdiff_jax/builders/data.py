"""Config -> the data set, clean and as the model sees it: the registries of sources and of corruptions."""

import copy
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax import cache
from advdiff_jax.builders.registry import Choice, as_user_error, find, lookup, lookup_all
from advdiff_jax.data import corruption, folder, image_corruptions, photos, pixels, prepare, record_dataset, sources, subspace
from advdiff_jax.data.records import Images
from advdiff_jax.data.tfds_source import NotPrepared, TfdsImages
from advdiff_jax.errors import UserError

DIAGNOSED = 1024  # images of a set that is read on the fly, of which the report has statistics


class SourceSpec(NamedTuple):
    """What is known of a name of `config.data.source`.

    Attributes:
        load: section `data` of a config -> `sources.Source`.
        reads: keys of the config that it reads and other sources may not.
        distribution: section `data` -> the distribution of the clean data; None: it is not known in closed form.
        prepare: section `data` -> None; downloads or converts what `load` reads (`--mode=prepare`).
    """

    load: Callable[[ml_collections.ConfigDict], sources.Source]
    reads: tuple[str, ...] = ()
    distribution: Callable[[ml_collections.ConfigDict], sources.KnownDistribution] | None = None
    prepare: Callable[[ml_collections.ConfigDict], None] = lambda c: None


class CorruptionSpec(NamedTuple):
    """What is known of a name in `config.data.corruptions`.

    Attributes:
        build: (section `data` of a config, clean examples) -> `corruption.Corruption`.
        reads: keys of the config that it reads and other corruptions may not.
        noise_std: section `data` -> the standard deviation of the noise that it adds; None: it adds no Gaussian noise.
        images_only: it needs examples [H, W, C].
    """

    build: Callable[[ml_collections.ConfigDict, pixels.Examples], corruption.Corruption]
    reads: tuple[str, ...] = ()
    noise_std: Callable[[ml_collections.ConfigDict], corruption.NoiseStd] | None = None
    images_only: bool = False


_SYNTHETIC = ("data.num_examples",)
_FITTED = ("data.size", "data.channels", "data.crop", "data.on_bad_image")
_TFDS = ("data.tfds_name", "data.split", "data.data_dir", "data.manual_dir")

SOURCES = {
    "plane3d": SourceSpec(
        lambda c: sources.plane3d(c.num_examples, c.seed, c.half_width),
        reads=(*_SYNTHETIC, "data.half_width"),
        distribution=lambda c: sources.plane3d_distribution(c.half_width),
    ),
    "mixture": SourceSpec(
        lambda c: sources.mixture(c.num_examples, c.seed, c.dim, c.components, c.spread, c.component_std, c.outlier_fraction),
        reads=(
            *_SYNTHETIC,
            *(f"data.{key}" for key in ("dim", "components", "spread", "component_std", "outlier_fraction")),
        ),
        distribution=lambda c: sources.mixture_distribution(c.dim, c.components, c.spread, c.component_std),
    ),
    "gaussian": SourceSpec(
        lambda c: sources.gaussian(c.num_examples, c.seed, c.stds),
        reads=(*_SYNTHETIC, "data.stds"),
        distribution=lambda c: sources.gaussian_distribution(c.stds),
    ),
    "digits": SourceSpec(lambda c: sources.digits()),
    "photo_crops": SourceSpec(
        lambda c: sources.images(photos.photo_crops(c.num_examples, c.seed, c.size)), reads=(*_SYNTHETIC, "data.size")
    ),
    "folder": SourceSpec(
        lambda c: sources.images(
            folder.image_folder(
                c.path, c.size, c.channels, c.crop, c.on_bad_image, pathlib.Path(c.cache_dir or cache.directory())
            )
        ),
        reads=("data.path", "data.cache_dir", *_FITTED),
    ),
    "array": SourceSpec(
        lambda c: sources.images(folder.image_array(c.path, c.size, c.channels)),
        reads=("data.path", "data.size", "data.channels"),
    ),
    "tfds": SourceSpec(
        lambda c: sources.images(
            Images(TfdsImages(c.tfds_name, c.split, c.data_dir), c.size, c.channels, c.crop, c.on_bad_image)
        ),
        reads=(*_TFDS, *_FITTED),
        prepare=lambda c: prepare.prepare(c.tfds_name, c.data_dir, c.manual_dir),
    ),
    "record_dataset": SourceSpec(lambda c: sources.images(record_dataset.RecordDataset(c.path)), reads=("data.path",)),
    "linear_subspace": SourceSpec(
        lambda c: _linear_subspace(c),
        reads=(*_SYNTHETIC, "data.base", "data.subspace_dim", "data.subspace_distribution"),
        prepare=lambda c: SOURCES[c.base].prepare(c),
    ),
}

SUBSPACE_DISTRIBUTIONS = {
    "projected": Choice(lambda c, images, truth: subspace.projected(images, truth)),
    "gaussian": Choice(lambda c, images, truth: subspace.gaussian(images, truth, c.seed)),
}

CORRUPTIONS = {
    "gaussian": CorruptionSpec(
        lambda c, clean: corruption.gaussian(c.noise_std),
        reads=("data.noise_std", "data.chance.gaussian"),
        noise_std=lambda c: corruption.gaussian_std(c.noise_std),
    ),
    "gaussian_range": CorruptionSpec(
        lambda c, clean: corruption.gaussian_range(c.noise_std_min, c.noise_std_max),
        reads=("data.noise_std_min", "data.noise_std_max", "data.chance.gaussian_range"),
        noise_std=lambda c: corruption.gaussian_range_std(c.noise_std_min, c.noise_std_max),
    ),
    "uniform_outlier": CorruptionSpec(lambda c, clean: corruption.uniform_outlier(), reads=("data.chance.uniform_outlier",)),
    "foreign_outlier": CorruptionSpec(
        lambda c, clean: corruption.foreign_outlier(_foreign(c, clean)),
        reads=("data.foreign_source", "data.foreign_path", "data.foreign_tfds_name", "data.chance.foreign_outlier"),
    ),
    "poison": CorruptionSpec(
        lambda c, clean: corruption.poison(_poisoned(c, clean)), reads=("data.poison_file", "data.chance.poison")
    ),
    "salt_and_pepper": CorruptionSpec(
        lambda c, clean: image_corruptions.salt_and_pepper(c.salt_share),
        reads=("data.salt_share", "data.chance.salt_and_pepper"),
        images_only=True,
    ),
    "missing_pixels": CorruptionSpec(
        lambda c, clean: image_corruptions.missing_pixels(c.missing_share),
        reads=("data.missing_share", "data.chance.missing_pixels"),
        images_only=True,
    ),
    "missing_block": CorruptionSpec(
        lambda c, clean: image_corruptions.missing_block(c.block_side),
        reads=("data.block_side", "data.chance.missing_block"),
        images_only=True,
    ),
    "blur": CorruptionSpec(
        lambda c, clean: image_corruptions.blur(c.blur_std),
        reads=("data.blur_std", "data.chance.blur"),
        images_only=True,
    ),
    "jpeg": CorruptionSpec(
        lambda c, clean: image_corruptions.jpeg(c.jpeg_quality),
        reads=("data.jpeg_quality", "data.chance.jpeg"),
        images_only=True,
    ),
}


class Data(NamedTuple):
    """The clean source, and the training set as the model sees it.

    Attributes:
        source: before any corruption.
        corrupted: the source with its corruption, applied when examples are read.
        train: the training set, [N, ...]; an array if the source is held in memory, else `corrupted`.
        diagnosed: indices [n] of the examples of which reports have statistics; all of those in memory.
        is_corrupted: whether each of them was chosen for corruption, [n].
    """

    source: sources.Source
    corrupted: corruption.CorruptedDataset
    train: pixels.Examples
    diagnosed: np.ndarray
    is_corrupted: np.ndarray


def build_data(config: ml_collections.ConfigDict) -> Data:
    """Loads and corrupts the data set of a config; raises UserError for a bad value, or data that are missing."""
    try:
        with as_user_error("config.data"):
            source = lookup(SOURCES, config, "data.source").load(config.data)
        corruptions = _corruptions(config, source.train)
    except NotPrepared as error:
        raise UserError(f"{error}; prepare it: {prepare_command(config)}") from error
    if config.data.flip and len(source.train.shape) != 4:
        raise UserError(f"config.data.flip=True mirrors images, and data.source={config.data.source} has none: set False")
    with as_user_error("config.data"):
        corrupted = corruption.CorruptedDataset(source.train, config.data.fraction, corruptions, config.data.seed)
    diagnosed = pixels.evenly_spaced_indices(len(corrupted), DIAGNOSED if source.on_the_fly else len(corrupted))
    seen = corrupted.read(diagnosed)
    return Data(source, corrupted, corrupted if source.on_the_fly else seen.x, diagnosed, seen.is_corrupted)


def build_noise_std(config: ml_collections.ConfigDict, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    """Builds indices [n] -> standard deviation of the noise in these training examples [n], for an oracle.

    Raises:
        UserError: the corruption of the config is not one kind of Gaussian noise.
    """
    noise_std = functools.partial(data.corrupted.noise_std, noise_std=_one_noise_std(config))
    if data.source.on_the_fly:
        return noise_std
    return noise_std(np.arange(len(data.corrupted))).__getitem__  # the examples are in memory, and so is their noise


def least_noise_std(config: ml_collections.ConfigDict) -> float:
    """Returns the smallest standard deviation of the noise in any training example; raises UserError as `build_noise_std`."""
    return _one_noise_std(config).least if config.data.fraction >= 1.0 else 0.0


def known_noise_std(config: ml_collections.ConfigDict) -> float | None:
    """Returns the standard deviation of the `gaussian` noise in the training set; None where the config adds none."""
    c = config.data
    known = "gaussian" in c.corruptions and c.fraction > 0 and c.chance.gaussian > 0 and c.noise_std > 0
    return float(c.noise_std) if known else None


def _one_noise_std(config):
    specs = lookup_all(CORRUPTIONS, config, "data.corruptions")
    noise_std = next(iter(specs.values())).noise_std if len(config.data.corruptions) == 1 else None
    if noise_std is None:
        known = ", ".join(name for name, spec in CORRUPTIONS.items() if spec.noise_std)
        raise UserError(
            f"config.objective={config.objective} reads the noise std of each example, which config.data.corruptions="
            f"{tuple(config.data.corruptions)} does not have: set one of {known} alone"
        )
    with as_user_error("config.data"):
        return corruption.occasional_std(config.data.chance[config.data.corruptions[0]], noise_std(config.data))


def _corruptions(config, clean):
    chain = []
    for name in config.data.corruptions:
        spec = find(CORRUPTIONS, name, "data.corruptions")
        if spec.images_only and len(clean.shape) != 4:
            raise UserError(f"config.data.corruptions: {name} needs images, and data.source={config.data.source} has none")
        with as_user_error("config.data"):
            chain.append(corruption.occasionally(config.data.chance.get(name, 1.0), spec.build(config.data, clean)))
    return chain


def prepare_command(config: ml_collections.ConfigDict) -> str:
    """Returns the command that prepares the data of a config."""
    options = [f" --config.data.data_dir={config.data.data_dir}"] if config.data.data_dir else []
    return "".join([f"python launch.py --config=configs/{config.name}.py --mode=prepare", *options])


def prepare_data(config: ml_collections.ConfigDict) -> None:
    """Downloads and prepares what `data.source` (and `data.foreign_source`, if it is used) reads; see `data.prepare`."""
    lookup(SOURCES, config, "data.source").prepare(config.data)
    if "foreign_outlier" in config.data.corruptions:
        lookup(SOURCES, config, "data.foreign_source").prepare(_foreign_section(config.data))
    build_data(config)  # reads it back: damage is reported now


def _linear_subspace(c):
    if c.base == "linear_subspace":
        raise UserError("config.data.base='linear_subspace' is the source itself: set another source of images")
    images = pixels.evenly_spaced(find(SOURCES, c.base, "data.base").load(c).train, c.num_examples)
    truth = subspace.fit_subspace(images, c.subspace_dim)
    distribution = find(SUBSPACE_DISTRIBUTIONS, c.subspace_distribution, "data.subspace_distribution")
    train, clean = distribution.build(c, images, truth)
    return sources.Source(train, clean, subspace=truth)


def _foreign_section(c):
    foreign = copy.deepcopy(c)
    foreign.source, foreign.path, foreign.tfds_name = c.foreign_source, c.foreign_path, c.foreign_tfds_name
    return foreign


def _foreign(c, clean):
    foreign = _foreign_section(c)
    others = find(SOURCES, c.foreign_source, "data.foreign_source").load(foreign).train
    if others.shape[1:] != clean.shape[1:]:
        raise UserError(
            f"config.data.foreign_source={c.foreign_source!r} has examples of shape {list(others.shape[1:])}, and the data "
            f"set of {list(clean.shape[1:])}: set a source with examples of the same shape"
        )
    return others


def _poisoned(c, clean):
    if not c.poison_file:
        raise UserError("config.data.poison_file is empty: write one with --mode=poison, and set its path")
    poisoned = record_dataset.RecordDataset(c.poison_file)
    if poisoned.about.get("made_from") != record_dataset.fingerprint(clean):
        raise UserError(
            f"config.data.poison_file={c.poison_file} was written for another data set: write it again with --mode=poison"
        )
    return poisoned
