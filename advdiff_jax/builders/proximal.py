"""Config -> the metric `proximal_fd`: samples, corrupted again, against the dirty training set; clean data are not read.

A model that draws clean images has the training set's distribution once its samples carry the training set's noise. A model
that draws noise has too much of it then. Each sample gets Gaussian noise of a std that is drawn from those read in the
training set, so that no share of clean examples need be known.
"""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from advdiff_jax.builders import noise_levels
from advdiff_jax.builders.outputs import Output
from advdiff_jax.data import pixels
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation.fidelity import frechet_distance

READS = (
    "evaluation.features",
    "evaluation.proximal_std",
    "evaluation.reading_level",
    "evaluation.reading_draws",
)

OUTPUTS = {
    "proximal_fd_*": Output(
        "Fréchet distance of samples under the training set's noise to the training set, in features; clean data unseen"
    ),
    "proximal_std": Output("median std of the noise that this gave the samples", None),
    "proximal_std_*": Output("median std of the noise in the training set, as wavelets or the model read it", None),
}


def compute(config: ml_collections.ConfigDict, inputs: Any, features: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Computes the metric.

    Args:
        config: reads `evaluation`.
        inputs: `metrics.EvalInputs`.
        features: images [n, H, W, C] as floats -> [n, F].

    Returns:
        `proximal_fd_NAME`; `proximal_std`, median std of the added noise; and, unless `evaluation.proximal_std` gives it,
        both readings of the training set, `proximal_std_wavelet` and `proximal_std_model`.
    """
    train, c = inputs.data.train, config.evaluation
    if len(train.shape) != 4:
        raise InvalidArgument(f"proximal_fd needs images, and data.source={config.data.source} has none")
    rng, readings = np.random.default_rng(c.seed), {}
    if c.proximal_std:
        stds = np.full(len(inputs.samples), c.proximal_std)
    else:
        found = noise_levels.read(config, inputs.model, pixels.evenly_spaced(train, noise_levels.MOST))
        readings = {f"proximal_std_{name}": float(np.median(levels)) for name, levels in found.items()}
        stds = rng.choice(found[noise_levels.trusted(train.shape[1:])], len(inputs.samples))
    noise = rng.standard_normal(inputs.samples.shape, np.float32)
    noisy = inputs.samples + stds[:, None, None, None].astype(np.float32) * noise
    stored = pixels.to_float(pixels.as_stored(noisy, train.dtype))  # clipped and rounded, where the training set is
    distance = frechet_distance(features(stored), features(inputs.reference(train)))
    return {f"proximal_fd_{c.features}": distance, "proximal_std": float(np.median(stds)), **readings}
