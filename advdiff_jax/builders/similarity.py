"""Config -> the diagnostic `similarity`: whether samples repeat training examples, in the features of a network."""

import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.features import build_vectors, check_features
from advdiff_jax.builders.outputs import Output
from advdiff_jax.data import pixels
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import figures, memorization, report

SHOWN = 16  # most suspicious pairs in the report
UNLIKELY = 1e-3  # chance of as many near duplicates without memorisation, below which a run warns
BATCH = 512  # images that the network sees at once


def _similarity(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Compares the similarity of samples to their nearest training example with that of held-out examples.

    Held-out examples are taken clean, and corrupted as the training set is; the bound is the larger of the two that they give,
    because samples may follow either.
    """
    name, data = config.evaluation.features, inputs.data
    if len(data.train.shape) != 4:
        raise InvalidArgument(f"similarity needs images, and data.source={config.data.source} has none")
    held_out = {"held out": data.held_out, "held out, corrupted": data.held_out_dirty}
    if not config.data.fraction:
        held_out.pop("held out, corrupted")
    most = config.evaluation.max_reference
    sets = {"samples": inputs.samples} | {
        key: pixels.evenly_spaced(examples, most) for key, examples in held_out.items() if examples is not None
    }
    found = memorization.most_similar(_features(config, data), sets, data.train, config.data.flip)
    similarity = {key: nearest.similarity for key, nearest in found.items()}
    bounds = [memorization.calibrate(similarity[key], config.evaluation.duplicate_rate) for key in sets if key != "samples"]
    bound = max(bounds, key=lambda one: one.similarity) if bounds else None
    numbers, text, warning = _verdict(name, similarity, bound)
    _write(inputs, name, found, bound)
    caption = f"Cosine similarity to the nearest training example, in {name}."
    pairs = f"The {min(SHOWN, len(inputs.samples))} most suspicious pairs: sample, nearest training example, similarity."
    images = [
        report.image(inputs.plots / "similarity.png", caption),
        report.image(inputs.plots / "similar_pairs.png", pairs, wide=True),
    ]
    text = f"{text} Warning: {warning}." if warning else text
    return Diagnosis(numbers, [report.Section("Similarity to the training set", text=text, images=images)], warning)


def _verdict(name, similarity, bound):
    """Returns the numbers, a text and a warning, "" if there is none."""
    samples = similarity["samples"]
    numbers = {f"nn_similarity_{name}": float(samples.mean())}
    if bound is None:
        return numbers, "No bound: set config.data.held_out to calibrate one on examples that training has not seen.", ""
    flagged, total = int(np.sum(samples > bound.similarity)), len(samples)
    chance = bound.p_value(flagged, total)
    numbers |= {
        f"nn_similarity_{name}_held_out": float(similarity["held out"].mean()),
        f"similarity_bound_{name}": bound.similarity,
        f"memorized_{name}": flagged / total,
        f"memorized_{name}_expected": bound.rate,
    }
    text = (
        f"{flagged:,} of {total:,} samples are above the bound {bound.similarity:.4f}; {bound.rate * total:.1f} are expected "
        f"without memorisation, because {bound.rank:,} of {bound.count:,} held-out examples reach it. The chance of so many is "
        f"{chance:.2g}."
    )
    if chance >= UNLIKELY:
        return numbers, text, ""
    warning = (
        f"memorisation: {flagged / total:.1%} of the samples are near duplicates of training examples in {name}, where "
        f"{bound.rate:.1%} of fresh examples are"
    )
    return numbers, text, warning


def _write(inputs, name, found, bound):
    """Writes similarity.json and both figures."""
    similarity = {key: nearest.similarity for key, nearest in found.items()}
    level = None if bound is None else bound.similarity
    lists = {key: values.tolist() for key, values in similarity.items()}
    nearest = found["samples"]
    workdir.write_json(
        inputs.plots / "similarity.json", {"features": name, "bound": level, **lists, "nearest": nearest.index.tolist()}
    )
    memorization.draw_similarities(similarity, level).savefig(inputs.plots / "similarity.png")
    _draw_pairs(inputs, nearest)


def _features(config, data):
    check_features(config, tuple(data.train.shape[1:]))
    return build_vectors(config)


def _draw_pairs(inputs, nearest):
    rows = np.argsort(-nearest.similarity, kind="stable")[:SHOWN]
    examples = pixels.to_float(inputs.data.train[nearest.index[rows]])
    examples = np.where(nearest.is_mirrored[rows][:, None, None, None], examples[:, :, ::-1], examples)
    titles = [f"{nearest.similarity[row]:.4f}{', mirrored' if nearest.is_mirrored[row] else ''}" for row in rows]
    limit = 1.0 if inputs.data.train.dtype == np.uint8 else figures.value_limit(examples)
    memorization.draw_pairs(inputs.samples[rows], examples, titles, limit).savefig(inputs.plots / "similar_pairs.png")


SPEC = DiagnosticSpec(
    _similarity,
    {
        "nn_similarity_*_held_out": Output("the same of clean held-out examples", None),
        "nn_similarity_*": Output("mean cosine similarity of a sample to its nearest training example, in features", None),
        "similarity_bound_*": Output("similarity that counts as a near duplicate, set on held-out examples", None),
        "memorized_*_expected": Output("the same without memorisation: the rate of false positives", None),
        "memorized_*": Output("share of samples above the bound on similarity"),
    },
    reads=("evaluation.features", "evaluation.duplicate_rate"),
)
