"""What a diagnostic looks at and what it says: the types of the registry `diagnostics.DIAGNOSTICS`."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax.builders.data import Data
from advdiff_jax.builders.outputs import Output
from advdiff_jax.evaluation import report


class DiagnosticInputs(NamedTuple):
    """What a diagnostic may look at.

    Attributes:
        samples: [N, ...].
        data: what the model was trained on.
        predict: (x [B, ...], t [B]) -> the network's prediction.
        noise_floor: noise level that the run has measured; None: it has measured none.
        plots: folder for figures.
    """

    samples: np.ndarray
    data: Data
    predict: Callable[[jax.Array, jax.Array], jax.Array]
    noise_floor: float | None
    plots: pathlib.Path


class Diagnosis(NamedTuple):
    """What a diagnostic says: numbers for results.json, sections for the report, and a warning, "" if there is none."""

    numbers: dict[str, float]
    sections: Sequence[report.Section] = ()
    warning: str = ""


class DiagnosticSpec(NamedTuple):
    """What is known of a name in `config.evaluation.diagnostics`.

    Attributes:
        compute: (config, `DiagnosticInputs`) -> `Diagnosis`.
        outputs: name of a number -> `Output`, as for a metric.
        reads: keys of the config that it reads and other diagnostics may not.
    """

    compute: Callable[[ml_collections.ConfigDict, DiagnosticInputs], Diagnosis]
    outputs: dict[str, Output]
    reads: tuple[str, ...] = ()
