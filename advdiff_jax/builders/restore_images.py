"""Config -> the images of `--mode=restore`, their noise and their masks, and what they should be."""

import logging
import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax import cache
from advdiff_jax.builders import levels, noise_file, sources
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.operators import build_operator, operator_spec
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.builders.restorers import Problem
from advdiff_jax.data import arrays, folder, pixels
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import UserError
from advdiff_jax.noise import measure
from advdiff_jax.noise.measure import NoiseLevels

log = logging.getLogger(__name__)

HELD_OUT = "held_out"  # value of restore.images
MEASURED = noise_file.MEASURED  # value of restore.noise_std
NEARLY_ALL = 0.99  # share of noisy training examples above which a plain model draws noisy images
KEYS = {
    "config.data.mask_path": "config.restore.file",
    "config.data.mask=": "config.restore.operator=",
    "config.data.value_range": "config.restore.value_range",
    "config.data.array_key": "config.restore.array_key",
    ", or set --config.data.on_bad_image=skip": "",  # another image would stand for the bad one
}
BESIDE, BYTES = 4000, 2**28  # training examples, at most, beside which images are measured


class Images(NamedTuple):
    """Images and their names.

    Attributes:
        stored: a data set [N, H, W, C], see `pixels`.
        names: without folder and ending, unique, [N].
        masks: pixels that are known, [N, H, W, 1] of bool; None: all.
        paths: with folders, without ending, by which clean images are found, [N]; (): they come with the images.
    """

    stored: pixels.Examples
    names: list[str]
    masks: pixels.Examples | None
    paths: list[str] | tuple = ()


class Restoration(NamedTuple):
    """What is to be restored.

    Attributes:
        problem: the images as measured.
        names: one for each.
        dtype: of the images as stored.
        clean: what they should be, [N, H, W, C] as floats; None: not known.
        words: what the images and their noise are, in words.
    """

    problem: Problem
    names: list[str]
    dtype: np.dtype
    clean: np.ndarray | None
    words: str


def build_restoration(config: ml_collections.ConfigDict, data: Data, schedule: Schedule) -> Restoration:
    """Reads images, masks and clean images, and measures the noise.

    Args:
        config: reads `restore`, and how `data` fits images to their size.
        data: of the model.
        schedule: of the model; its largest noise bounds that of the images.

    Raises:
        UserError: images are missing or do not fit, a mask does not fit, the noise is not known or is above the process's, or
            the operator has no adjoint.
    """
    shape = tuple(data.train.shape[1:])
    if len(shape) != 3:
        raise UserError(f"--mode=restore restores images, and config.data.source={config.data.source} has none")
    operator = build_operator(config, shape)
    found, clean = _held_out(config, data) if config.restore.images == HELD_OUT else _given(config, shape)
    y = pixels.to_float(found.stored[np.arange(len(found.stored))])
    masks = None if found.masks is None else found.masks[np.arange(len(y))]
    if masks is not None:
        y = np.where(masks, y, np.float32(0.0))
    std, words = _noise(config, found, data.train, schedule)
    problem = Problem(y, std.astype(np.float32), masks, operator, found.stored.dtype == np.uint8 and config.restore.unclip)
    return Restoration(problem, found.names, found.stored.dtype, clean, words)


def _held_out(config, data):
    if data.held_out_dirty is None:
        raise UserError("config.restore.images='held_out' needs examples apart from training: set config.data.held_out")
    if operator_spec(config).mask != "none":
        raise UserError("config.restore.images='held_out' has no masks: set config.restore.operator to noise, or name a folder")
    clean = pixels.evenly_spaced(data.held_out, config.restore.count or len(data.held_out))
    rows = pixels.evenly_spaced_indices(len(data.held_out), config.restore.count or len(data.held_out))
    dirty = data.held_out_dirty[rows]
    is_dirty = np.any((pixels.to_float(dirty) != clean).reshape(len(rows), -1), axis=1)
    log.info("%d of %d held-out examples are dirty, and are restored", is_dirty.sum(), len(rows))
    if not is_dirty.any():
        raise UserError("config.restore.images='held_out': none of these examples is dirty: set config.data.fraction above 0")
    names = [f"{row:06d}" for row in rows[is_dirty]]
    return Images(dirty[is_dirty], names, None), clean[is_dirty]


def _given(config, shape):
    c, spec = config.restore, operator_spec(config)
    found = read_images(config, "images", c.images, shape, spec.mask)
    clean = _paired(read_images(config, "clean", c.clean, shape), found) if c.clean else None
    if c.count and c.count < len(found.names):
        log.info("config.restore.count=%d: evenly spaced ones of %s images", c.count, f"{len(found.names):,}")
        rows = pixels.evenly_spaced_indices(len(found.names), c.count)
        masks = None if found.masks is None else found.masks[rows]
        found = Images(found.stored[rows], [found.names[row] for row in rows], masks)
        clean = clean if clean is None else clean[rows]
    return found, clean


def read_images(config: ml_collections.ConfigDict, key: str, path: str, shape: tuple[int, ...], mask: str = "none") -> Images:
    """Reads a folder, an archive, an .npy or an .npz file of images, cropped and resized as the training images are.

    Args:
        config: reads `data.crop`, `data.pad`, `restore.value_range`, `restore.array_key` and `restore.file`.
        key: that names the path in `restore`, for messages.
        path: the folder or file.
        shape: of an image, (H, W, C).
        mask: a name of `data.mask`.

    Raises:
        UserError: see `data.folder.image_folder` and `data.arrays.image_array`.
    """
    c, size, channels = config.data, shape[:2], shape[2]
    if not path:
        raise UserError(f"config.restore.{key} is empty: name a folder, an archive, or an .npy or .npz file of images")
    try:
        value_range = sources.value_range(config.restore)
        with as_user_error(f"config.restore.{key}"):
            if pathlib.Path(path).expanduser().suffix in (".npy", ".npz"):
                if mask == "folder":
                    raise UserError("config.data.mask='folder' is not for arrays: set nan or alpha")
                stored = arrays.image_array(path, size, channels, config.restore.array_key, value_range, mask)
                names = [f"{index:06d}" for index in range(len(stored))]
            else:
                if mask == "nan":
                    raise UserError("config.data.mask='nan' is for arrays of floats: set alpha or folder")
                stored = folder.image_folder(
                    *(path, size, channels, c.crop, "fail"),
                    cache_dir=pathlib.Path(c.cache_dir or cache.directory()),
                    value_range=value_range,
                    pad=c.pad,
                    mask=mask,
                    mask_path=config.restore.file,
                    fewest=1,
                )
                names = stored.names()
    except UserError as error:  # the readers name the keys of a training set
        said = str(error).replace("config.data.path", f"config.restore.{key}")
        for theirs, own in KEYS.items():
            said = said.replace(theirs, own)
        raise UserError(said) from error
    return Images(stored, names, getattr(stored, "masks", None), getattr(stored, "paths", lambda: names)())


def _paired(clean, dirty):
    """Returns the clean image of each dirty one, as floats: that of the same name."""
    by_path = {path: index for index, path in enumerate(clean.paths)}
    missing = [path for path in dirty.paths if path not in by_path]
    if missing:
        raise UserError(
            f"config.restore.clean has no image for {len(missing):,} of {len(dirty.paths):,} images, such as {missing[0]}: add "
            "one of the same name, in the same subfolder, for each"
        )
    if len(by_path) < len(clean.paths):
        raise UserError("config.restore.clean has several images of one name that differ in their ending: leave one of each")
    return pixels.to_float(clean.stored[np.array([by_path[path] for path in dirty.paths])])


def _measured(config, images, train):
    """Measures the noise of images beside training examples, which say what is quiet in such images, and what is clean."""
    room = max(1, BYTES // int(np.prod(train.shape[1:]) * train.dtype.itemsize))
    beside = train[pixels.evenly_spaced_indices(len(train), min(BESIDE, room))]
    both = [np.asarray(images[np.arange(len(images))]), beside]
    if both[0].dtype != both[1].dtype:
        both = [pixels.to_float(part) for part in both]
    with as_user_error("config.restore.images"):
        found = measure.measure(np.concatenate(both), config.seed)
    noisy = float(np.mean(~found.is_clean[len(images) :]))
    if noisy > NEARLY_ALL and config.restore.method != "final" and not objective_spec(config).lowest_noise(config):
        log.warning(
            "%.0f%% of the training examples are noisy, and draws of the model are as noisy as they are: set "
            "config.restore.method=final, or train ambient_blind with config.noise.without_clean=lowest",
            100.0 * noisy,
        )
    is_clean, reading, whiteness = (value[: len(images)] for value in (found.is_clean, found.reading, found.whiteness))
    std, uncertainty = measure.shrunk(reading, found.error, is_clean)  # the level of the training set is not theirs
    return NoiseLevels(std, found.error, is_clean, reading, whiteness, found.words, uncertainty)


def _noise(config, found, train, schedule):
    """Returns the std of the noise in each image [N], and words."""
    c, spec, count = config.restore, operator_spec(config), len(found.names)
    if c.noise_std != MEASURED:
        std, words = np.full(count, float(c.noise_std)), f"noise of std {c.noise_std:g}, as given"
    elif spec.kind == "mask":
        raise UserError(
            "config.restore.noise_std='measured' reads whole images, and these have masks: give the std of the noise in the "
            "known pixels, 0 for none"
        )
    elif spec.kind == "linear":
        raise UserError(
            f"config.restore.noise_std='measured' reads noise that is white in the images, and config.restore.operator="
            f"{c.operator} may leave another: give its std, 0 for none"
        )
    else:
        measured = _measured(config, found.stored, train)
        std, words = measured.used(), levels.describe(measured)
        if spec.kind == "noise" and (is_clean := np.sum(std == 0.0)):
            log.warning("%d of %d images have no noise that is found, and stay as they are", is_clean, count)
    highest = float(schedule.noise_to_signal(np.float32(1.0)))
    if std.max() > highest:
        raise UserError(
            f"config.restore.noise_std: the noise has std {std.max():.3g}, above the largest noise-to-signal of the process, "
            f"{highest:.3g}: lower it, or set a process with more noise"
        )
    return std, words
