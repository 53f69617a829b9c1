"""Config -> which examples a batch holds, and what it says of them beside their values."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.data import Data, build_noise_std
from advdiff_jax.builders.levels import build_levels, build_pairs
from advdiff_jax.builders.masks import build_mask, mask_bank
from advdiff_jax.builders.noise_file import taught
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import build_process
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.noise.measure import NoiseLevels


class Teaching(NamedTuple):
    """What is known of the examples.

    Attributes:
        noise_std: indices [n] -> std of the noise in these examples [n], given or measured; None: the objective takes none.
        pairs: draws the examples with their times; None: epoch after epoch, and times in the step.
        mask: indices [n] -> masks of these examples [n, H, W, 1] bool; None: the objective takes none.
        bank: masks of which samples draw theirs, [M, H, W, 1]; None: the network sees no mask.
        levels: what was measured; None: nothing.
    """

    noise_std: Callable[[np.ndarray], np.ndarray] | None = None
    pairs: Pairs | None = None
    mask: Callable[[np.ndarray], np.ndarray] | None = None
    bank: np.ndarray | None = None
    levels: NoiseLevels | None = None

    def of_batches(self) -> dict[str, Any]:
        """Returns the arguments of `BatchSource`."""
        return {"noise_std": self.noise_std, "mask": self.mask, "pairs": self.pairs}


def build_teaching(config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path | None = None) -> Teaching:
    """Builds what the objective of a config needs.

    Args:
        config: a resolved config.
        data: its data.
        folder: of the run, where measured levels are kept; None: they are not.

    Raises:
        UserError: the noise or the mask of the examples is not known or cannot be measured, or no example teaches anything.
    """
    spec = objective_spec(config)
    if not spec.by_level:
        noise_std = build_noise_std(config, data) if spec.needs_noise_std else None
        mask = build_mask(config, data.source, data.corrupted) if spec.needs_mask(config) else None
        return Teaching(noise_std, mask=mask, bank=mask_bank(mask, len(data.corrupted)) if spec.gives_mask else None)
    found = build_levels(config, data, folder)
    pairs = build_pairs(config, build_process(config).schedule, found, spec.by_level == "clean")
    return Teaching(taught(config, found).__getitem__ if spec.by_level == "above" else None, pairs, levels=found)
