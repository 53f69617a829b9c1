"""Config -> the criterion of the denoising error: its registry."""

import ml_collections

from advdiff_jax.builders.process import Process
from advdiff_jax.builders.registry import Choice, build
from advdiff_jax.objectives import pseudo_huber
from advdiff_jax.objectives.denoising import Criterion, square

HUBER_SCHEDULES = {
    "constant": Choice(lambda c: pseudo_huber.constant(c.huber_c)),
    "exponential": Choice(lambda c: pseudo_huber.exponential(c.huber_c)),
    "snr": Choice(lambda c: pseudo_huber.snr(c.huber_c)),
}

_HUBER = ("baselines.huber_schedule", "baselines.huber_c")

CRITERIA = {
    "square": Choice(lambda c, schedule: square),
    "pseudo_huber": Choice(
        lambda c, schedule: pseudo_huber.pseudo_huber(schedule, build(HUBER_SCHEDULES, c, "baselines.huber_schedule")),
        reads=_HUBER,
    ),
    "huber": Choice(
        lambda c, schedule: pseudo_huber.huber(schedule, build(HUBER_SCHEDULES, c, "baselines.huber_schedule")), reads=_HUBER
    ),
}


def build_criterion(config: ml_collections.ConfigDict, process: Process) -> Criterion:
    """Builds the criterion of the denoising error."""
    return build(CRITERIA, config, "criterion", process.schedule)
