"""Config -> clean data: the registry of sources."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from advdiff_jax import cache
from advdiff_jax.builders.registry import Choice, find
from advdiff_jax.data import photos, pixels, record_dataset, sources, subspace
from advdiff_jax.errors import UserError


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


_SYNTHETIC = ("data.num_examples",)
_FITTED = ("data.size", "data.channels", "data.crop", "data.pad", "data.on_bad_image")
_TFDS = ("data.tfds_name", "data.split", "data.data_dir", "data.manual_dir", "data.check_archives")

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
        lambda c: _folder(c), reads=("data.path", "data.cache_dir", "data.value_range", "data.mask", *_FITTED)
    ),
    "array": SourceSpec(
        lambda c: _array(c),
        reads=tuple(f"data.{key}" for key in ("path", "array_key", "value_range", "size", "channels", "mask")),
    ),
    "points": SourceSpec(lambda c: _points(c), reads=("data.path", "data.array_key")),
    "tfds": SourceSpec(lambda c: _tfds(c), reads=(*_TFDS, "data.value_range", *_FITTED), prepare=lambda c: _prepare_tfds(c)),
    "record_dataset": SourceSpec(lambda c: sources.images(record_dataset.RecordDataset(c.path)), reads=("data.path",)),
    "linear_subspace": SourceSpec(
        lambda c: _linear_subspace(c),
        reads=(*_SYNTHETIC, "data.base", "data.subspace_dim", "data.subspace_distribution"),
        prepare=lambda c: SOURCES[c.base].prepare(c),
    ),
}


class MaskSpec(NamedTuple):
    """What is known of a name of `config.data.mask`: the sources whose files may have it, and the keys that it alone reads."""

    sources: tuple[str, ...]
    reads: tuple[str, ...] = ()


MASKS = {
    "none": MaskSpec(("folder", "array")),
    "alpha": MaskSpec(("folder", "array")),
    "folder": MaskSpec(("folder",), reads=("data.mask_path",)),
    "nan": MaskSpec(("array",)),
}

SUBSPACE_DISTRIBUTIONS = {
    "projected": Choice(lambda c, images, truth: subspace.projected(images, truth)),
    "gaussian": Choice(lambda c, images, truth: subspace.gaussian(images, truth, c.seed)),
}


def _linear_subspace(c):
    if c.base == "linear_subspace":
        raise UserError("config.data.base='linear_subspace' is the source itself: set another source of images")
    images = pixels.evenly_spaced(find(SOURCES, c.base, "data.base").load(c).train, c.num_examples)
    truth = subspace.fit_subspace(images, c.subspace_dim)
    distribution = find(SUBSPACE_DISTRIBUTIONS, c.subspace_distribution, "data.subspace_distribution")
    train, clean = distribution.build(c, images, truth)
    return sources.Source(train, clean, subspace=truth, draws_examples=c.subspace_distribution == "projected")


# The readers of files are imported by the source that needs them: they are a third of the package, and so is their import.


def _folder(c):
    from advdiff_jax.data import folder

    cache_dir = pathlib.Path(c.cache_dir or cache.directory())
    return sources.images(
        folder.image_folder(
            c.path,
            c.size,
            c.channels,
            c.crop,
            c.on_bad_image,
            cache_dir=cache_dir,
            value_range=value_range(c),
            pad=c.pad,
            mask=_mask(c, "folder"),
            mask_path=c.mask_path,
        )
    )


def _array(c):
    from advdiff_jax.data import arrays

    return sources.images(arrays.image_array(c.path, c.size, c.channels, c.array_key, value_range(c), _mask(c, "array")))


def _points(c):
    from advdiff_jax.data import arrays

    return sources.points(arrays.point_array(c.path, c.array_key))


def _tfds(c):
    from advdiff_jax.data.records import Images
    from advdiff_jax.data.tfds_source import TfdsImages

    encoded = TfdsImages(c.tfds_name, c.split, c.data_dir)
    found = sources.images(Images(encoded, c.size, c.channels, c.crop, c.on_bad_image, value_range(c), pad=c.pad))
    return found._replace(labels=encoded.labels if encoded.has_labels else None)


def _prepare_tfds(c):
    from advdiff_jax.data import prepare

    prepare.prepare(c.tfds_name, c.data_dir, c.manual_dir, c.check_archives)


def _mask(c, source):
    """Returns the name of `data.mask`; raises UserError if files of this source cannot have it."""
    if source not in find(MASKS, c.mask, "data.mask").sources:
        known = ", ".join(name for name, spec in MASKS.items() if source in spec.sources)
        raise UserError(f"config.data.mask={c.mask!r} is not for config.data.source={source}: set one of {known}")
    return c.mask


def value_range(c):
    """Returns (black, white) of a section of a config, or None for what the files say; raises UserError for another pair."""
    pair = tuple(c.value_range)
    if pair and (len(pair) != 2 or not pair[0] < pair[1]):
        raise UserError(f"config.data.value_range={pair} is out of range: set (BLACK,WHITE) with BLACK < WHITE, or ()")
    return pair or None
