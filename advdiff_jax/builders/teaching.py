"""Config -> which examples a batch holds, and what it says of them beside their values."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.data import Data, build_noise_std
from advdiff_jax.builders.levels import build_levels, build_pairs
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import build_process
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.noise.measure import NoiseLevels


class Teaching(NamedTuple):
    """Arguments of `data.batches.BatchSource`.

    Attributes:
        noise_std: indices [n] -> std of the noise in these examples [n], given or measured; None: the objective takes none.
        pairs: draws the examples with their times; None: epoch after epoch, and times in the step.
        levels: what was measured; None: nothing.
    """

    noise_std: Callable[[np.ndarray], np.ndarray] | None = None
    pairs: Pairs | None = None
    levels: NoiseLevels | None = None


def build_teaching(config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path | None = None) -> Teaching:
    """Builds what the objective of a config needs.

    Args:
        config: a resolved config.
        data: its data.
        folder: of the run, where measured levels are kept; None: they are not.

    Raises:
        UserError: the noise of the examples is not known or cannot be measured, or no example teaches anything.
    """
    spec = objective_spec(config)
    if spec.needs_noise_std:
        return Teaching(build_noise_std(config, data))
    if not spec.by_level:
        return Teaching()
    found = build_levels(config, data, folder)
    pairs = build_pairs(config, build_process(config).schedule, found, spec.by_level == "clean")
    return Teaching(found.used().__getitem__ if spec.by_level == "above" else None, pairs, found)
