"""Config -> the objectives of ambient denoising, and what they learn down to."""

from collections.abc import Callable

import ml_collections

from advdiff_jax.data.pairs import LEAST
from advdiff_jax.objectives.ambient import ambient
from advdiff_jax.objectives.ambient_mask import ambient_mask


def guessed(config: ml_collections.ConfigDict) -> float:
    """Returns the noise std that is assumed of every example."""
    return config.baselines.guess * config.data.noise_std


def build_ambient(std: Callable, config: ml_collections.ConfigDict, process, variance_loss, noise_floor) -> Callable:
    """Builds the objective for `std`: config -> one noise std of all examples; None: each example comes with its own."""
    c = config.baselines
    return ambient(process.schedule, process.parameterization, c.margin, std(config), variance_loss, c.consistency)


def build_ambient_mask(config: ml_collections.ConfigDict, process, variance_loss, noise_floor) -> Callable:
    """Builds the objective for masks."""
    return ambient_mask(process.schedule, process.parameterization, config.baselines.further, variance_loss)


def build_ambient_blind(config: ml_collections.ConfigDict, process, variance_loss, noise_floor) -> Callable:
    """Builds the objective for measured levels."""
    # The pairs keep every example above its level; this margin only bounds the variance of the target.
    return ambient(process.schedule, process.parameterization, LEAST - 1.0, None, variance_loss)


def lowest_ambient(std: Callable, config: ml_collections.ConfigDict) -> float:
    """Returns the noise-to-signal below which nothing is learnt; the consistency term also teaches below the noise."""
    return 0.0 if config.baselines.consistency else (1.0 + config.baselines.margin) * std(config)


def cost_of_ambient(config: ml_collections.ConfigDict) -> float:
    """Returns the cost of a plain step; and of the term's three evaluations, one where it starts and two where it ends."""
    return 12.0 if config.baselines.consistency else 3.0
