"""Config -> the data set, clean and as the model sees it: the registry of corruptions."""

import copy
import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.registry import Choice, as_user_error, build, find, lookup, lookup_all
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import corruption, held_out, image_corruptions, pixels, record_dataset, sources
from advdiff_jax.errors import NotPrepared, UserError

log = logging.getLogger(__name__)

DIAGNOSED = 1024  # images of a set that is read on the fly, of which the report has statistics


class CorruptionSpec(NamedTuple):
    """What is known of a name in `config.data.corruptions`.

    Attributes:
        build: (section `data` of a config, clean examples) -> `corruption.Corruption`.
        reads: keys of the config that it reads and other corruptions may not.
        noise_std: section `data` -> the standard deviation of the noise that it adds; None: it adds no Gaussian noise.
        images_only: it needs examples [H, W, C].
        mask: section `data` -> draws the mask of the pixels that it leaves; None: it hides none.
        fills: it fills what the corruption before it has hidden.
    """

    build: Callable[[ml_collections.ConfigDict, pixels.Examples], corruption.Corruption]
    reads: tuple[str, ...] = ()
    noise_std: Callable[[ml_collections.ConfigDict], corruption.NoiseStd] | None = None
    images_only: bool = False
    mask: Callable[[ml_collections.ConfigDict], image_corruptions.MaskDraw] | None = None
    fills: bool = False


_FOREIGN = ("data.foreign_source", "data.foreign_path", "data.foreign_tfds_name")

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
        lambda c, clean: corruption.foreign_outlier(build_foreign(c, clean)),
        reads=(*_FOREIGN, "data.chance.foreign_outlier"),
    ),
    "foreign_patch": CorruptionSpec(
        lambda c, clean: image_corruptions.foreign_patch(build_foreign(c, clean), c.patch_side),
        reads=(*_FOREIGN, "data.patch_side", "data.chance.foreign_patch"),
        images_only=True,
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
        mask=lambda c: image_corruptions.missing_pixels_mask(c.missing_share),
    ),
    "missing_block": CorruptionSpec(
        lambda c, clean: image_corruptions.missing_block(c.block_side),
        reads=("data.block_side", "data.chance.missing_block"),
        images_only=True,
        mask=lambda c: image_corruptions.missing_block_mask(c.block_side),
    ),
    "mean_fill": CorruptionSpec(
        lambda c, clean: image_corruptions.mean_fill(), reads=("data.chance.mean_fill",), images_only=True, fills=True
    ),
    "inpaint": CorruptionSpec(
        lambda c, clean: image_corruptions.inpaint(), reads=("data.chance.inpaint",), images_only=True, fills=True
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
        train: the training set, [N, ...]; an array if the source is held in memory, else `corrupted`.
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
        corruptions = _corruptions(config, source.train)
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
    train = corrupted if source.on_the_fly else seen.x
    return Data(source, corrupted, train, diagnosed, seen.is_corrupted, kept_out, dirty, split.labels)


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
    chain, hides = [], False
    for name in config.data.corruptions:
        spec = find(CORRUPTIONS, name, "data.corruptions")
        if spec.fills and not hides:
            hiding = " or ".join(other for other, one in CORRUPTIONS.items() if one.mask)
            raise UserError(f"config.data.corruptions: {name} fills what {hiding} has hidden: list it right after one of them")
        hides = spec.mask is not None
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
    if any("data.foreign_source" in spec.reads for spec in lookup_all(CORRUPTIONS, config, "data.corruptions").values()):
        lookup(SOURCES, config, "data.foreign_source").prepare(_foreign_section(config.data))
    build_data(config)  # reads it back: damage is reported now


def _foreign_section(c):
    foreign = copy.deepcopy(c)
    foreign.source, foreign.path, foreign.tfds_name = c.foreign_source, c.foreign_path, c.foreign_tfds_name
    return foreign


def build_foreign(c: ml_collections.ConfigDict, clean: pixels.Examples) -> pixels.Examples:
    """Loads `foreign_source`; its images are resized to the shape of the clean examples, and made grey or coloured.

    Args:
        c: section `data` of a config.
        clean: the examples among which the foreign ones are to stand.

    Raises:
        UserError: an unknown source, or points beside images.
    """
    foreign, shape = _foreign_section(c), clean.shape[1:]
    if len(shape) == 3:
        with foreign.ignore_type():  # a side, or (height, width)
            foreign.size, foreign.channels = shape[:2], shape[2]  # a source that resizes its files does so once
    others = find(SOURCES, c.foreign_source, "data.foreign_source").load(foreign).train
    if others.shape[1:] == shape:
        return others
    if len(others.shape) != 4 or len(shape) != 3:
        raise UserError(
            f"config.data.foreign_source={c.foreign_source!r} has examples of shape {list(others.shape[1:])}, and the data "
            f"set of {list(shape)}: set a source with examples of the same shape, or images for images"
        )
    from advdiff_jax.data.foreign import Fitted  # reads images, which points do not need

    return Fitted(others, shape)


def _poisoned(c, clean):
    if not c.poison_file:
        raise UserError("config.data.poison_file is empty: write one with --mode=poison, and set its path")
    poisoned = record_dataset.RecordDataset(c.poison_file)
    if poisoned.about.get("made_from") != record_dataset.fingerprint(clean):
        raise UserError(
            f"config.data.poison_file={c.poison_file} was written for another data set: write it again with --mode=poison"
        )
    return poisoned
