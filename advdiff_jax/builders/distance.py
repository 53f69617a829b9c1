"""Config -> one number for a set of samples, by the run's own metrics: what curves over budgets and steps show."""

from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.data import Data
from advdiff_jax.builders.metrics import METRICS, evaluate
from advdiff_jax.builders.outputs import Output, describe
from advdiff_jax.builders.registry import nearest
from advdiff_jax.errors import UserError

# Without a wish: the headline of the first of these metrics.
HEADLINES = {"wasserstein": "w2", "fd": "fd_{features}", "noise_energy": "noise_energy"}


class Distance(NamedTuple):
    """A number of a metric.

    Attributes:
        name: as in results.json.
        output: what is known of it.
        of: samples [N, ...], as floats -> (the number, "") or (NaN, why there is none).
    """

    name: str
    output: Output
    of: Callable[[np.ndarray], tuple[float, str]]


def build_distance(config: ml_collections.ConfigDict, data: Data, wanted: str) -> Distance:
    """Builds the number called `wanted`, of the metrics of the run.

    Raises:
        UserError: no metric of `evaluation.metrics` has a number of this name.
    """
    metrics = config.evaluation.metrics
    metric = next((name for name in metrics if describe(METRICS[name].outputs, wanted).meaning), None)
    if metric is None:
        known = [output for name in metrics for output in METRICS[name].outputs]
        raise UserError(
            f"config.evaluation.few_steps.metric={wanted!r} is no number of config.evaluation.metrics"
            f"{nearest(wanted, known)}: set one of {', '.join(known)}"
        )
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.evaluation.metrics = (metric,)
        own.evaluation.bootstrap = 0  # a curve needs no error of each of its points

    def of(samples):
        found = evaluate(own, data, samples, None)
        if wanted in found.numbers:
            return found.numbers[wanted], ""
        return float("nan"), "; ".join(found.failures.values()) or f"{metric} gave no {wanted}"

    return Distance(wanted, describe(METRICS[metric].outputs, wanted), of)


def first_distance(config: ml_collections.ConfigDict, data: Data, samples: np.ndarray) -> tuple[Distance | None, list[str]]:
    """Builds the first of the headlines of the run's metrics that samples of this number have.

    Returns:
        it, or None; and why those before it have none, a line each.
    """
    reasons = []
    for metric in (name for name in HEADLINES if name in config.evaluation.metrics):
        found = build_distance(config, data, HEADLINES[metric].format(features=config.evaluation.features))
        _, reason = found.of(samples)
        if not reason:
            return found, reasons
        reasons.append(f"{found.name} is left out: {reason}")
    return None, reasons or ["config.evaluation.metrics has no distance to clean data"]
