"""Config -> the metric `memorization`: distances to the nearest training examples, in pixels."""

from typing import Any

import ml_collections

from advdiff_jax.builders.outputs import Output
from advdiff_jax.evaluation.memorization import nearest_neighbours

OUTPUTS = {
    "nn_distance_ratio": Output(
        "distance to the nearest over the second nearest training example; near 1: no memorisation", "highest"
    ),
    "near_duplicates": Output("share of samples that are much nearer to one training example than to any other"),
    "n*_held_out": Output("the same of held-out examples, clean", None),
    "n*_held_out_dirty": Output("the same of held-out examples, corrupted as the training set", None),
}


def compute(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes `nearest_neighbours` of samples and, if there are any, of held-out examples; inputs: `metrics.EvalInputs`."""
    data, results = inputs.data, {}
    held_out = {"_held_out": data.held_out, "_held_out_dirty": data.held_out_dirty}
    sets = {suffix: inputs.reference(examples) for suffix, examples in held_out.items() if examples is not None}
    for suffix, examples in {"": inputs.samples, **sets}.items():
        found = nearest_neighbours(examples, data.train, mirrored=config.data.flip)
        results |= {f"{name}{suffix}": value for name, value in found.items()}
    return results
