"""Config -> the metrics that compare samples with clean images in the features of a network.

Features of the samples, of the clean reference and of the training set are taken once for all of them.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.features import build_features, check_features
from advdiff_jax.builders.outputs import Output
from advdiff_jax.data import pixels
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import fidelity, reference
from advdiff_jax.features.network import Extracted, FeatureNetwork, extract
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

FEW = 10_000  # samples below which a Frechet distance is known to be too large (Chong & Forsyth 2020)
KEPT = 4  # data sets whose features are kept


class FeatureSets(NamedTuple):
    """The features of a run's sets.

    Attributes:
        samples: features [N, F].
        reference: what they are compared with.
        dirty: features of the training set, as the model saw it.
    """

    samples: Extracted
    reference: reference.Reference
    dirty: np.ndarray


_kept: list[tuple[tuple, Any, Extracted]] = []


def feature_sets(
    config: ml_collections.ConfigDict, data: Any, samples: np.ndarray, share: tuple[int, int] = (0, 1)
) -> FeatureSets:
    """Takes the features that the metrics below need. Every process takes its share of the images, and gets all features.

    Args:
        config: reads `evaluation`.
        data: `data.Data`.
        samples: [N, H, W, C].
        share: (i, n) of process i of n; all of them call this.
    """
    network, c = build_features(config), config.evaluation
    mapped = parallel.parallel_apply(network.apply, network.params)
    take = functools.partial(_extract, network, mapped, c.features_batch, share)
    dirty = _remembered(config, data.train, take)
    if not c.reference:
        vectors = _remembered(config, data.source.train, take).vectors
        about = f"{len(vectors):,} clean images of the training set"
        found = reference.Reference(fidelity.moments([vectors]), vectors, None, about)
    else:
        found = reference.read(c.reference, c.features, network.dimension)
        if found.vectors is None and found.images is not None:
            found = found._replace(vectors=take(found.images).vectors)
    return FeatureSets(take(samples), found, dirty.vectors)


def _extract(network: FeatureNetwork, mapped: Callable, batch_size: int, share: tuple[int, int], images: pixels.Examples):
    total = len(images)
    mine = np.arange(share[0], total, share[1])
    found = extract(network, _Rows(images, mine), batch_size, mapped)
    if share[1] == 1:
        return found
    rows = [None if one is None else parallel.gather_rows(one, total) for one in found]
    return Extracted(*rows)


class _Rows:
    """Rows of a data set (see `pixels`)."""

    def __init__(self, examples, rows):
        self._examples, self._rows = examples, rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, indices):
        return self._examples[self._rows[indices]]


def _remembered(config, examples, take):
    """Returns the features of at most `max_reference` examples of a data set; a curve of samples asks for them many times."""
    c = config.evaluation
    key = (c.features, c.weights, c.weights_sha256, c.max_reference, id(examples))
    for known, _, found in _kept:
        if known == key:
            return found
    found = take(_Rows(examples, pixels.evenly_spaced_indices(len(examples), c.max_reference)))
    _kept.append((key, examples, found))  # with the data set, so that its id stays its own
    del _kept[:-KEPT]
    return found


def check(config: ml_collections.ConfigDict, data: Any, needs_covariance: bool = False) -> None:
    """Raises InvalidArgument where a metric below has no meaning for the config's data or numbers."""
    dimension, c = check_features(config, tuple(data.train.shape[1:])), config.evaluation
    if needs_covariance and c.num_samples <= dimension:
        raise InvalidArgument(
            f"a covariance of {dimension} features needs more samples than that: set evaluation.num_samples above it "
            f"(it is {c.num_samples}), or another evaluation.features"
        )


def note(config: ml_collections.ConfigDict, inputs: Any) -> str:
    """Says what was compared with what."""
    sets = inputs.features()
    return f"{len(sets.samples.vectors):,} samples, against {sets.reference.about}"


def _vectors(sets, metric):
    if sets.reference.vectors is None:
        raise InvalidArgument(f"{metric} needs features, and evaluation.reference holds moments alone")
    return sets.reference.vectors


def frechet(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes fd_NAME, its standard error, and that of the training set."""
    name, c, sets = config.evaluation.features, config.evaluation, inputs.features()
    vectors, clean = sets.samples.vectors, sets.reference.moments
    for what, count in (("samples", len(vectors)), ("dirty examples", len(sets.dirty))):
        if count <= vectors.shape[1]:
            raise InvalidArgument(f"a covariance of {vectors.shape[1]} features needs more than {count} {what}")
    if len(vectors) < FEW and c.bootstrap:
        log.warning("fd_%s of %s samples is larger than of %s: compare runs of one number of samples only", name,
                    f"{len(vectors):,}", f"{FEW:,}")  # fmt: skip
    numbers = {
        f"fd_{name}": fidelity.gaussian_distance(fidelity.moments([vectors]), clean),
        f"fd_{name}_dirty": fidelity.gaussian_distance(fidelity.moments([sets.dirty]), clean),
    }
    return numbers | ({f"fd_{name}_std": fidelity.frechet_spread(vectors, clean, c.bootstrap)} if c.bootstrap > 1 else {})


def kernel(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes kid_NAME with its deviation over subsets, and that of the training set."""
    name, sets = config.evaluation.features, inputs.features()
    clean = _vectors(sets, "kid")
    found, dirty = (fidelity.kernel_distance(one, clean) for one in (sets.samples.vectors, sets.dirty))
    return {f"kid_{name}": found.value, f"kid_{name}_std": found.std, f"kid_{name}_dirty": dirty.value}


def score(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes the inception score, with its deviation over splits."""
    probabilities = inputs.features().samples.probabilities
    if probabilities is None:
        raise InvalidArgument(
            f"inception_score needs a classifier, and evaluation.features={config.evaluation.features} is none"
        )
    found = fidelity.inception_score(probabilities)
    return {"inception_score": found.value, "inception_score_std": found.std}


def _neighbourhoods(config, inputs, names):
    sets, k = inputs.features(), config.evaluation.nearest_k
    clean = _vectors(sets, names[0])
    most = config.evaluation.max_neighbours
    x, y = (pixels.evenly_spaced(one, most) for one in (sets.samples.vectors, clean))
    found = fidelity.neighbourhoods(x, y, k)._asdict()
    return {name: found[name].value for name in names} | {f"{name}_std": found[name].std for name in names}


def precision_recall(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes precision and recall, with their standard errors."""
    return _neighbourhoods(config, inputs, ("precision", "recall"))


def density_coverage(config: ml_collections.ConfigDict, inputs: Any) -> dict[str, float]:
    """Computes density and coverage, with their standard errors."""
    return _neighbourhoods(config, inputs, ("density", "coverage"))


NEIGHBOURS = ("evaluation.nearest_k", "evaluation.max_neighbours")
FEATURE_KEYS = ("evaluation.features", "evaluation.reference", "evaluation.features_batch")

OUTPUTS = {
    "fd": {
        "fd_*_dirty": Output("Fréchet distance of the training data to clean data", None),
        "fd_*_std": Output("its standard error over draws of the samples (bootstrap)", None),
        "fd_digits_cnn": Output(
            "Fréchet distance to clean data in the features of a digit classifier, which hardly sees noise"
        ),
        "fd_*": Output("Fréchet distance to clean data in the features of the network that the name gives"),
    },
    "kid": {
        "kid_*_dirty": Output("kernel distance of the training data to clean data", None),
        "kid_*_std": Output("its standard deviation over subsets", None),
        "kid_*": Output("kernel distance (KID) to clean data in features: unbiased, so that few samples do not raise it"),
    },
    "inception_score": {
        "inception_score_std": Output("its standard deviation over ten splits", None),
        "inception_score": Output("exp of the mutual information of class and sample: clear and varied samples", "highest"),
    },
    "precision_recall": {
        "precision": Output("share of samples within the clean data's neighbourhoods: quality", "highest"),
        "recall": Output("share of clean data within the samples' neighbourhoods: variety", "highest"),
        "precision_std": Output("its standard error", None),
        "recall_std": Output("its standard error", None),
    },
    "density_coverage": {
        "density": Output(
            "clean neighbourhoods that hold a sample, over k: quality, robust to outliers; 1 for clean data", "one"
        ),
        "coverage": Output("share of clean neighbourhoods with a sample: variety, robust to outliers", "highest"),
        "density_std": Output("its standard error", None),
        "coverage_std": Output("its standard error", None),
    },
}
