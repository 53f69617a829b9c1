"""Config -> the data set, clean and as the model sees it: the dictionaries of sources and of corruptions."""

import copy
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax import builders_objectives, cache
from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.data import corruption, folder, photos, picture_corruptions, prepare, sources, stored, subspace, wire
from advdiff_jax.data.records import Pictures
from advdiff_jax.data.tfds_source import NotPrepared, TfdsImages
from advdiff_jax.errors import UserError

SOURCES = {
    "plane3d": lambda c: sources.plane3d(c.num_examples, c.seed, c.half_width),
    "mixture": lambda c: sources.mixture(
        c.num_examples, c.seed, c.dim, c.components, c.spread, c.component_std, c.outlier_fraction
    ),
    "gaussian": lambda c: sources.gaussian(c.num_examples, c.seed, c.stds),
    "digits": lambda c: sources.digits(),
    "photo_crops": lambda c: sources.pictures(photos.photo_crops(c.num_examples, c.seed, c.size)),
    "folder": lambda c: sources.pictures(
        folder.picture_folder(
            c.path, c.size, c.channels, c.crop, c.on_bad_picture, pathlib.Path(c.cache_dir or cache.directory())
        )
    ),
    "array": lambda c: sources.pictures(folder.picture_array(c.path, c.size, c.channels)),
    "tfds": lambda c: sources.pictures(
        Pictures(TfdsImages(c.tfds_name, c.split, c.data_dir), c.size, c.channels, c.crop, c.on_bad_picture)
    ),
    "stored": lambda c: sources.pictures(stored.Stored(c.path)),
    "linear_subspace": lambda c: _linear_subspace(c),
}

# What `--mode=prepare` does for a source; nothing for those that are not here.
PREPARATIONS = {
    "tfds": lambda c: prepare.prepare(c.tfds_name, c.data_dir, c.manual_dir),
    "linear_subspace": lambda c: _prepare(c, c.base),
}

LAWS = {
    "projected": lambda x, plane, seed: subspace.projected(x, plane),
    "gaussian": subspace.gaussian,
}

CORRUPTIONS = {
    "gaussian": lambda c, clean: corruption.gaussian(c.noise_std),
    "gaussian_range": lambda c, clean: corruption.gaussian_range(c.noise_std_min, c.noise_std_max),
    "uniform_outlier": lambda c, clean: corruption.uniform_outlier(),
    "foreign_outlier": lambda c, clean: corruption.foreign_outlier(_foreign(c, clean)),
    "poison": lambda c, clean: corruption.poison(_poisoned(c, clean)),
    "salt_and_pepper": lambda c, clean: picture_corruptions.salt_and_pepper(c.salt_share),
    "missing_pixels": lambda c, clean: picture_corruptions.missing_pixels(c.missing_share),
    "missing_block": lambda c, clean: picture_corruptions.missing_block(c.block_side),
    "blur": lambda c, clean: picture_corruptions.blur(c.blur_std),
    "jpeg": lambda c, clean: picture_corruptions.jpeg(c.jpeg_quality),
}
# Those whose noise an oracle can be told.
NOISE_STDS = {
    "gaussian": lambda c: corruption.gaussian_std(c.noise_std),
    "gaussian_range": lambda c: corruption.gaussian_range_std(c.noise_std_min, c.noise_std_max),
}
PICTURES_ONLY = ("salt_and_pepper", "missing_pixels", "missing_block", "blur", "jpeg")

INSPECTED = 1024  # pictures of a large set that are looked at for the report


class Data(NamedTuple):
    """The clean source, and the training set as the model sees it.

    Attributes:
        source: before any corruption.
        train: the training set, [N, ...]; an array if the source is held in memory, else read and corrupted on the fly.
        inspected: indices [n] of examples for reports; all of those in memory, INSPECTED of the others.
        touched: whether each of them was chosen for corruption, [n].
        noise_std: indices [n] -> standard deviation of the noise in these training examples [n], for an objective that is
            told; None for all others.
    """

    source: sources.Source
    train: wire.Examples
    inspected: np.ndarray
    touched: np.ndarray
    noise_std: Callable[[np.ndarray], np.ndarray] | None = None


def build_data(config: ml_collections.ConfigDict) -> Data:
    """The data set that a config names, corrupted; raises UserError for a value that cannot be, or data that are missing."""
    try:
        source = choose(SOURCES, config, "data.source")
        chain = _corruptions(config, source.train)
    except NotPrepared as error:
        raise UserError(f"{error}; prepare it: {prepare_command(config)}") from error
    if config.data.flip and len(source.train.shape) != 4:
        raise UserError(f"config.data.flip mirrors pictures, and {config.data.source} has none")
    with refused("config.data.fraction"):
        dirty = corruption.Dirty(source.train, config.data.fraction, chain, config.data.seed)
    inspected = wire.spread_indices(len(dirty), INSPECTED if source.on_the_fly else len(dirty))
    seen = dirty.look(inspected)
    noise_std = _noise_std(config, dirty) if builders_objectives.entry(config).knows_noise else None
    if noise_std and not source.on_the_fly:
        noise_std = noise_std(np.arange(len(dirty))).__getitem__  # as the examples: worked out once
    return Data(source, dirty if source.on_the_fly else seen.x, inspected, seen.touched, noise_std)


def _noise_std(config, dirty):
    names, c = config.data.corruptions, config.data
    if len(names) != 1 or names[0] not in NOISE_STDS:
        raise UserError(
            f"config.objective={config.objective} must know the noise of each example: need one corruption among "
            f"{', '.join(NOISE_STDS)} in config.data.corruptions, got {', '.join(names) or 'none'}"
        )
    return functools.partial(dirty.noise_std, noise_std=corruption.occasional_std(c.chance[names[0]], NOISE_STDS[names[0]](c)))


def _corruptions(config, clean):
    chain = []
    for name in config.data.corruptions:
        if name not in CORRUPTIONS:
            raise UserError(f"config.data.corruptions: {name!r} is not known: choose among {', '.join(CORRUPTIONS)}")
        if name in PICTURES_ONLY and len(clean.shape) != 4:
            raise UserError(f"config.data.corruptions: {name} is for pictures, and {config.data.source} has none")
        with refused("config.data"):
            chain.append(corruption.occasionally(config.data.chance[name], CORRUPTIONS[name](config.data, clean)))
    return chain


def prepare_command(config: ml_collections.ConfigDict) -> str:
    """The command that prepares the data of a config."""
    options = [f" --config.data.data_dir={config.data.data_dir}"] if config.data.data_dir else []
    return "".join([f"python launch.py --config=configs/{config.name}.py --mode=prepare", *options])


def prepare_data(config: ml_collections.ConfigDict) -> None:
    """Downloads and prepares what `data.source` (and `data.foreign_source`, if it is used) needs; see `data.prepare`."""
    pick(SOURCES, config, "data.source")
    _prepare(config.data, config.data.source)
    if "foreign_outlier" in config.data.corruptions:
        foreign = _foreign_section(config.data)
        _prepare(foreign, foreign.source)
    build_data(config)  # reads it back: what is wrong with it is said now


def _prepare(section, name):
    if name in PREPARATIONS:
        PREPARATIONS[name](section)


def _source(section, key):
    if section[key] not in SOURCES:
        raise UserError(f"config.data.{key}={section[key]!r} is not known: choose one of {', '.join(SOURCES)}")
    return SOURCES[section[key]](section)


def _linear_subspace(c):
    if c.base == "linear_subspace" or c.subspace_law not in LAWS:
        raise UserError(
            f"config.data: need another source as base, and a subspace_law among {', '.join(LAWS)}; got {c.base!r} and "
            f"{c.subspace_law!r}"
        )
    pictures = wire.spread(_source(c, "base").train, c.num_examples)
    truth = subspace.fit_subspace(pictures, c.components)
    train, clean = LAWS[c.subspace_law](pictures, truth, c.seed)
    return sources.Source(train, clean, subspace=truth)


def _foreign_section(c):
    foreign = copy.deepcopy(c)
    foreign.source, foreign.path, foreign.tfds_name = c.foreign_source, c.foreign_path, c.foreign_tfds_name
    return foreign


def _foreign(c, clean):
    others = _source(_foreign_section(c), "source").train
    if others.shape[1:] != clean.shape[1:]:
        raise UserError(
            f"config.data.foreign_source={c.foreign_source!r} has examples of shape {list(others.shape[1:])}, and the data "
            f"set of {list(clean.shape[1:])}: outliers must have the same shape"
        )
    return others


def _poisoned(c, clean):
    if not c.poison_file:
        raise UserError("config.data.poison_file is empty: make one with --mode=poison, and name it")
    poisoned = stored.Stored(c.poison_file)
    if poisoned.about.get("made_from") != stored.fingerprint(clean):
        raise UserError(f"config.data.poison_file={c.poison_file} was made from other data: make it again from these")
    return poisoned
