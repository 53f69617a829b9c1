"""Config -> what makes a training set dirty: the registry of corruptions."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from advdiff_jax.builders.registry import as_user_error, find, lookup_all
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import corruption, image_corruptions, pixels, record_dataset
from advdiff_jax.errors import UserError


class CorruptionSpec(NamedTuple):
    """What is known of a name in `config.data.corruptions`.

    Attributes:
        build: (section `data` of a config, clean examples) -> `corruption.Corruption`.
        reads: keys of the config that it reads and other corruptions may not.
        noise_std: section `data` -> the standard deviation of the noise that it adds; None: it adds no Gaussian noise.
        images_only: it needs examples [H, W, C].
        mask: section `data` -> draws the mask of the pixels that it leaves; None: it hides none.
    """

    build: Callable[[ml_collections.ConfigDict, pixels.Examples], corruption.Corruption]
    reads: tuple[str, ...] = ()
    noise_std: Callable[[ml_collections.ConfigDict], corruption.NoiseStd] | None = None
    images_only: bool = False
    mask: Callable[[ml_collections.ConfigDict], image_corruptions.MaskDraw] | None = None


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


def build_corruptions(config: ml_collections.ConfigDict, clean: pixels.Examples) -> list[corruption.Corruption]:
    """Builds the corruptions of a config, in their order; raises UserError for one that does not fit the clean examples."""
    chain = []
    for name in config.data.corruptions:
        spec = find(CORRUPTIONS, name, "data.corruptions")
        if spec.images_only and len(clean.shape) != 4:
            raise UserError(f"config.data.corruptions: {name} needs images, and data.source={config.data.source} has none")
        with as_user_error("config.data"):
            chain.append(corruption.occasionally(config.data.chance.get(name, 1.0), spec.build(config.data, clean)))
    return chain


def build_one_noise_std(config: ml_collections.ConfigDict) -> corruption.NoiseStd:
    """Builds the standard deviation of the only corruption of a config; raises UserError unless it is one kind of noise."""
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


def foreign_section(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the section `data` of the data set that `data.foreign_*` names, given the own section."""
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
    foreign, shape = foreign_section(c), clean.shape[1:]
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
