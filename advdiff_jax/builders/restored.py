"""Config -> what a user does to dirty images before training: the registry of `data.restored_by`."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.masks import build_mask
from advdiff_jax.builders.registry import lookup
from advdiff_jax.data import classical, corruption, pixels
from advdiff_jax.data.sources import Source
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

IN_MEMORY = 2**31  # bytes of restored images that are kept


class RestoredSpec(NamedTuple):
    """What is known of a name of `config.data.restored_by`.

    Attributes:
        restore: (images [n, H, W, C] of floats, masks [n, H, W, 1], or None if it takes none) -> images; None: as they came.
        fills: it fills what the masks of the data hide; else it filters all pixels.
        reads: keys of the config that it reads and others may not.
    """

    restore: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None
    fills: bool = False
    reads: tuple[str, ...] = ()

    @property
    def filters(self) -> bool:
        """Whether known pixels change, and with them their noise."""
        return self.restore is not None and not self.fills


RESTORED = {
    "none": RestoredSpec(None),
    "nl_means": RestoredSpec(lambda images, masks: classical.nl_means(images)),
    "wavelet": RestoredSpec(lambda images, masks: classical.wavelet(images)),
    "mean_fill": RestoredSpec(classical.mean_fill, fills=True),
    "inpaint": RestoredSpec(classical.inpaint, fills=True),
}


def build_restored(
    config: ml_collections.ConfigDict, source: Source, corrupted: corruption.CorruptedDataset, train: pixels.Examples
) -> pixels.Examples:
    """Returns the training set with each image restored by `data.restored_by`, clean ones too: nobody knows which they are.

    Args:
        config: reads `data`.
        source: of the data.
        corrupted: the source with its corruption, whose masks are known.
        train: the training set as it came.

    Raises:
        UserError: examples are no images, or see `build_mask`.
    """
    spec, by = lookup(RESTORED, config, "data.restored_by"), f"config.data.restored_by={config.data.restored_by}"
    if spec.restore is None:
        return train
    if len(train.shape) != 4:
        raise UserError(f"{by} restores images, and data.source={config.data.source} has none: set none")
    if not spec.fills and min(train.shape[1:3]) < classical.SMALLEST:
        log.warning("%s: wavelets hardly read the noise of images below %d pixels, and content is lost", by, classical.SMALLEST)
    mask = build_mask(config, source, corrupted, by) if spec.fills else lambda indices: None
    keep = np.prod(train.shape) * train.dtype.itemsize <= IN_MEMORY
    when = "first visit" if keep else "every visit, because there are too many to keep"
    log.info("%s: each of %s images is restored at its %s", by, f"{len(train):,}", when)
    return classical.Restored(train, lambda images, indices: spec.restore(images, mask(indices)), keep)
