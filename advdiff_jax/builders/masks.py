"""Config -> the mask of each training example: which of its pixels are seen."""

import logging
from collections.abc import Callable

import ml_collections
import numpy as np

from advdiff_jax.builders.corruptions import CORRUPTIONS
from advdiff_jax.builders.registry import as_user_error, lookup, lookup_all
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import corruption, pixels
from advdiff_jax.data.sources import Source
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

LOOKED_AT = 256  # examples whose masks are looked at before training


def has_mask(config: ml_collections.ConfigDict) -> bool:
    """Says whether the data of a config come with masks: those of `data.mask`, or of a corruption that hides pixels."""
    own = "data.mask" in lookup(SOURCES, config, "data.source").reads and config.data.mask != "none"
    return own or any(spec.mask for spec in lookup_all(CORRUPTIONS, config, "data.corruptions").values())


def build_mask(
    config: ml_collections.ConfigDict, source: Source, corrupted: corruption.CorruptedDataset, reader: str = ""
) -> Callable[[np.ndarray], np.ndarray]:
    """Builds indices [n] -> masks [n, H, W, 1] bool of these training examples, True where a pixel is seen.

    The masks of synthetic corruptions are replayed from their seeds; a pixel is seen where they and `data.mask` leave it. The
    log says how many are.

    Args:
        config: reads `data`.
        source: of the data.
        corrupted: the source with its corruption.
        reader: what reads the masks, for messages; "": the objective.

    Raises:
        UserError: no pixel is ever hidden, or a corruption does more to seen pixels than adding Gaussian noise.
    """
    replays = _replays(config, source.train, reader or f"config.objective={config.objective}")

    def mask(indices):
        replayed = corrupted.mask(indices, replays)
        return replayed if source.masks is None else replayed & source.masks[indices]

    looked_at = mask_bank(mask, len(corrupted))
    share, whole = np.mean(looked_at), np.mean(looked_at.all(axis=(1, 2, 3)))
    log.info("masks of %d examples: %.1f %% of the pixels are seen, in %.1f %% all", len(looked_at), 100 * share, 100 * whole)
    if not share:
        raise UserError(
            f"the masks of {len(looked_at)} examples hide every pixel: make them white, or opaque, where it is known"
        )
    if share == 1.0:
        log.warning("the masks of %d examples hide no pixel: is this the right config.data.mask?", len(looked_at))
    if source.on_the_fly:
        return mask
    return mask(np.arange(len(corrupted))).__getitem__  # the examples are in memory, and so are their masks


def mask_bank(mask: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Returns masks of the `count` training examples for samples to draw from, [n, H, W, 1]; see `build_mask`."""
    return mask(pixels.evenly_spaced_indices(count, LOOKED_AT))


def _replays(config, clean, reader):
    """Returns one function (rng, mask, index) -> mask for each corruption, which draws the same random numbers."""
    shape, specs = clean.shape[1:], lookup_all(CORRUPTIONS, config, "data.corruptions")
    named = f"config.data.corruptions={tuple(specs)}"
    masking = " or ".join(name for name, spec in CORRUPTIONS.items() if spec.mask)
    if not has_mask(config):
        raise UserError(
            f"{reader} reads the mask of each example, which {named} does not have: add {masking}, "
            "or name those of your images by config.data.mask"
        )
    if others := [name for name, spec in specs.items() if not (spec.mask or spec.noise_std)]:
        raise UserError(
            f"{reader} reads masks, and seen pixels may carry Gaussian noise alone: leave {', '.join(others)} out of {named}"
        )
    replays = []
    for name, spec in specs.items():
        with as_user_error("config.data"):
            step = _hiding(spec.mask(config.data), shape) if spec.mask else _drawing(spec.build(config.data, clean), shape)
            replays.append(corruption.occasionally(config.data.chance[name], step))
    return replays


def _hiding(draw, shape):
    return lambda rng, mask, index: mask & draw(rng, shape)


def _drawing(corrupt, shape):
    """Returns a step that keeps the mask, and draws what a corruption draws: the masks after it depend on that."""
    example = np.zeros(shape, np.float32)

    def step(rng, mask, index):
        corrupt(rng, example, index)
        return mask

    return step
