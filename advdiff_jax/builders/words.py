"""A config in words, for the head of a report."""

import ml_collections
import numpy as np

from advdiff_jax.builders.noise_file import final_std
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.penalty import PERTURBATIONS, WEIGHTS
from advdiff_jax.builders.process import SAMPLERS
from advdiff_jax.builders.registry import get, lookup
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data.pixels import Examples

_NAMES = ("data.tfds_name", "data.path", "data.base")  # keys that say which data set a source reads


def describe_data(config: ml_collections.ConfigDict, train: Examples) -> str:
    """Says what a training set is; `train` has it as the model sees it."""
    c, reads = config.data, lookup(SOURCES, config, "data.source").reads
    name = " ".join(str(get(config, key)) for key in _NAMES if key in reads)
    kind = "images" if len(train.shape) == 4 else "points"
    shape = " x ".join(map(str, train.shape[1:]))
    dirt = f"{c.fraction:.0%} of them are corrupted ({_corruptions(c)}), and no model is given which" if c.fraction else "clean"
    dirt += "" if c.restored_by == "none" else f"; all restored by {c.restored_by} before training"
    return f"{' '.join(filter(None, [c.source, name]))}: {len(train):,} {kind} of {shape}, {np.dtype(train.dtype)}; {dirt}"


def _corruptions(c):
    noise = {"gaussian": f"{c.noise_std:g}", "gaussian_range": f"{c.noise_std_min:g} to {c.noise_std_max:g}"}
    words = {name: f"Gaussian noise of std {std}" for name, std in noise.items()}
    return ", then ".join(words.get(name, name.replace("_", " ")) for name in c.corruptions)


def describe_objective(config: ml_collections.ConfigDict) -> str:
    """Says what a run minimises: its objective, and the perturbation and the weight of a penalty."""
    reads, c = objective_spec(config).reads, config.robust
    parts = [f"{config.objective} with a {config.criterion.replace('_', '-')} loss"]
    if objective_spec(config).em:
        parts.append(f"{_count(config.em.laps, 'lap')} of EM from a {config.em.start} start, E-step {config.em.e_step}")
    if "robust.perturbation" in reads:
        steps = "robust.attack_steps" in lookup(PERTURBATIONS, config, "robust.perturbation").reads
        parts.append(f"{c.perturbation} perturbations" + (f" ({_count(c.attack_steps, 'ascent step')})" if steps else ""))
    if "robust.weight" in reads:
        own = [key for key in lookup(WEIGHTS, config, "robust.weight").reads if key.startswith("robust.")]
        values = {key.removeprefix("robust."): get(config, key) for key in own}
        settings = ", ".join(f"{key} = {value if isinstance(value, str) else f'{value:g}'}" for key, value in values.items())
        parts.append(f"weight {c.weight}" + (f" ({settings})" if settings else ""))
    return ", ".join(parts)


def describe_known(config: ml_collections.ConfigDict) -> str:
    """Says what the objective is given of each example beside its values: `known = nothing | std | mask | mask, std`."""
    spec = objective_spec(config)
    std = {"above": "std, as measured in it", "clean": "std, as measured in it: 0 or not"}.get(spec.by_level)
    if spec.needs_noise_std:
        std = "std of its noise"
    elif "baselines.guess" in spec.reads:
        std = f"std, {config.baselines.guess * config.data.noise_std:g} for all"
    return ", ".join(filter(None, ["mask" if spec.needs_mask(config) else None, std])) or "nothing"


def _count(number, noun):
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_training(config: ml_collections.ConfigDict, count: int) -> str:
    """Says how long a run trains on `count` examples, and how."""
    c, decay = config.train, config.sampling.ema_decay or config.train.ema_decay
    passes = c.steps * c.batch_size / count
    return (
        f"{c.steps:,} steps of {c.batch_size} examples, {passes:.2g} passes over the data; Adam, learning rate "
        f"{c.learning_rate:g} ({c.decay}); the average of decay {decay:g} draws the samples"
    )


def describe_sampling(config: ml_collections.ConfigDict) -> str:
    """Says how samples are drawn, and how many are judged."""
    c = config.sampling
    settings = [
        *([f"{c.steps} steps"] if "sampling.grid" in lookup(SAMPLERS, config, "sampling.method").reads else []),
        *([f"x0 clipped to {c.clip:g}"] if c.clip else []),
        *([_final(c)] if final_std(c) else []),
    ]
    return f"{', '.join([c.method, *settings])}; {config.evaluation.num_samples:,} samples are judged"


def _final(c):
    std = f"{c.final_denoise:g}" + (" at most, each sample's own" if c.final_own else "")
    return f"a final step that removes noise of std {std}" + (", by a draw" if c.final_random else "")


def setup(config: ml_collections.ConfigDict, train: Examples, parameters: int) -> list[tuple[str, str]]:
    """Returns the set-up of a run as (term, words).

    Args:
        config: a resolved config.
        train: the training set, as the model sees it.
        parameters: of the network.
    """
    c = config.diffusion
    network = f"{config.network.kind} of {parameters:,} parameters, which predicts {c.prediction}; {c.schedule}"
    return [
        ("Data", describe_data(config, train)),
        ("Model", network + (f" with {c.grid_steps:,} steps" if c.grid_steps else "")),
        ("Objective", f"{config.variant}: {describe_objective(config)}"),
        ("Known of each example", describe_known(config)),
        ("Training", describe_training(config, len(train))),
        ("Sampling", describe_sampling(config)),
    ]
