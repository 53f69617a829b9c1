"""Config -> what is measured on samples, and on the model that drew them: the registry of metrics."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax.builders import fidelity as feature_metrics
from advdiff_jax.builders import memorization, proximal
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.features import build_vectors
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.registry import as_user_error, lookup, lookup_all
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.data import pixels, subspace
from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.model import Model
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import failures, fidelity, ground_truth, score_field


class EvalInputs(NamedTuple):
    """What a metric may look at.

    Attributes:
        samples: [N, ...].
        data: what the model was trained on, and the clean truth.
        clean: () -> N clean examples, another draw at each call.
        reference: a data set -> at most `evaluation.max_reference` of its examples, as floats.
        model: what drew the samples; None: not known, as of a folder of images.
        features: () -> features of samples, reference and training set.
    """

    samples: np.ndarray
    data: Data
    clean: Callable[[], np.ndarray]
    reference: Callable[[pixels.Examples], np.ndarray]
    model: Model | None
    features: Callable[[], feature_metrics.FeatureSets] = lambda: None


class MetricSpec(NamedTuple):
    """What is known of a name in `config.evaluation.metrics`.

    Attributes:
        compute: (config, `EvalInputs`) -> name -> number.
        outputs: name of a number -> `Output`; "*" in a name stands for any characters.
        requires: (config, `Data`) -> None; raises InvalidArgument where the data do not have what the metric needs.
        reads: keys of the config that it reads and other metrics may not.
        note: (config, `EvalInputs`) -> what was compared with what, said beside each of its numbers.
        has_features: whether it asks for `EvalInputs.features`.
        needs_model: whether it asks for `EvalInputs.model`.
    """

    compute: Callable[[ml_collections.ConfigDict, EvalInputs], dict[str, float]]
    outputs: dict[str, Output]
    requires: Callable[[ml_collections.ConfigDict, Data], None] = lambda config, data: None
    reads: tuple[str, ...] = ()
    note: Callable[[ml_collections.ConfigDict, EvalInputs], str] = lambda config, inputs: ""
    has_features: bool = False
    needs_model: bool = False


def true_distribution(config: ml_collections.ConfigDict) -> exact.Distribution | None:
    """Builds the distribution of the clean data of a config, or None where it is not known in closed form."""
    build = lookup(SOURCES, config, "data.source").distribution
    if build is None:
        return None
    known = build(config.data)
    return exact.DISTRIBUTIONS[known.kind](**known.parameters)


def check_metrics(config: ml_collections.ConfigDict, data: Data) -> None:
    """Refuses a metric that the data do not allow; a run calls it before it trains."""
    for name, spec in lookup_all(METRICS, config, "evaluation.metrics").items():
        with as_user_error(f"config.evaluation.metrics: {name}"):
            spec.requires(config, data)


class Evaluated(NamedTuple):
    """Numbers by name, the reason of each metric or diagnostic that failed, and what is said beside a number."""

    numbers: dict[str, float]
    failures: dict[str, str]
    notes: dict[str, str]


def evaluate(
    config: ml_collections.ConfigDict, data: Data, samples: np.ndarray, model: Model, share: tuple[int, int] = (0, 1)
) -> Evaluated:
    """Computes the metrics of a set of samples, each for itself: one that fails leaves the others as they are.

    Args:
        config: reads `evaluation`.
        data: what the model was trained on, and the clean truth.
        samples: [N, ...].
        model: what drew them.
        share: (i, n): every n-th metric from the i-th, for process i of n.

    Raises:
        UserError: an unknown metric.
    """
    rng = np.random.default_rng(config.evaluation.seed)  # runs of one seed are compared with the same clean draws
    specs, found = lookup_all(METRICS, config, "evaluation.metrics"), Evaluated({}, {}, {})
    features = functools.lru_cache(functools.partial(feature_metrics.feature_sets, config, data, samples, share))
    inputs = EvalInputs(
        samples,
        data,
        clean=lambda: data.source.clean(rng, len(samples)),
        reference=lambda examples: pixels.evenly_spaced(examples, config.evaluation.max_reference),
        model=model,
        features=features,
    )
    if share[1] > 1 and any(spec.has_features for spec in specs.values()):
        failures.attempt("features", features, {})  # all processes take part, whichever metrics are theirs
    for name, spec in list(specs.items())[share[0] :: share[1]]:
        numbers = failures.attempt(name, functools.partial(spec.compute, config, inputs), found.failures) or {}
        numbers = failures.finite(numbers, found.failures)
        found.numbers.update(numbers)
        if numbers and (note := spec.note(config, inputs)):
            found.notes.update(dict.fromkeys(numbers, note))
    return found


def _plane(config, inputs):
    return ground_truth.plane(inputs.samples, inputs.clean(), inputs.data.source.plane)


def _needs_plane(config, data):
    if data.source.plane is None:
        raise InvalidArgument(f"data.source={config.data.source} has no plane")


def _subspace(config, inputs):
    truth, results = inputs.data.source.subspace, {}
    sets = {"": inputs.samples, "_dirty": inputs.reference(inputs.data.train), "_clean": inputs.clean()}
    for suffix, x in sets.items():
        angles = subspace.principal_angles(x, truth)
        numbers = {"principal_angle_mean": float(angles.mean()), "principal_angle_max": float(angles.max())}
        results |= {f"{name}{suffix}": value for name, value in (subspace.distances(x, truth) | numbers).items()}
    return results


def _needs_subspace(config, data):
    if data.source.subspace is None:
        raise InvalidArgument(f"data.source={config.data.source} has no linear subspace")
    if config.evaluation.num_samples <= config.data.subspace_dim:
        raise InvalidArgument(
            f"evaluation.num_samples={config.evaluation.num_samples} must exceed data.subspace_dim={config.data.subspace_dim}"
        )


def _wasserstein(config, inputs):
    distance = functools.partial(ground_truth.wasserstein2_in_parts, points=config.evaluation.w2_points)
    return {"w2": distance(inputs.samples, inputs.clean()), "w2_floor": distance(inputs.clean(), inputs.clean())}


def _needs_points(config, data):
    if len(data.train.shape) != 2:
        raise InvalidArgument(f"it compares points [N, D], and data.source={config.data.source} has images")


def _score_error(config, inputs):
    c, source, model = config.evaluation, inputs.data.source, inputs.model
    truth = Model(model.schedule, exact.denoiser(true_distribution(config), model.schedule))
    clean = source.clean(np.random.default_rng(c.seed), c.num_samples)
    levels = np.geomspace(*c.score_range, c.score_levels)
    results = {"score_error": ground_truth.score_error(model, truth, clean, levels, jax.random.key(c.seed))}
    section = score_field.section(source.plane, clean.shape[1:])
    if section and c.field_levels:
        half_side = score_field.limit(source)
        found, wanted = (score_field.score_field(one, section, c.field_levels, half_side) for one in (model, truth))
        results["score_error_grid"] = ground_truth.grid_error(found, wanted)
    return results


def _needs_distribution(config, data):
    if true_distribution(config) is None:
        known = ", ".join(name for name, spec in SOURCES.items() if spec.distribution)
        raise InvalidArgument(f"the distribution of data.source={config.data.source!r} is not known, only of {known}")


def _likelihood(config, inputs):
    c = config.evaluation
    if objective_spec(config).lowest_noise(config):  # below the level of a guess there is no density
        return {}
    points, key = inputs.data.source.clean(np.random.default_rng(c.seed), c.likelihood_points), jax.random.key(c.seed)
    solver = config.sampling.rtol, config.sampling.atol, config.sampling.batch_size
    bits = ground_truth.bits_per_dimension(inputs.model, points, key, c.likelihood_probes, c.likelihood_bin, *solver)
    return {"bits_per_dimension": bits}


def _noise_energy(config, inputs):
    clean, dirty = inputs.reference(inputs.data.source.train), inputs.reference(inputs.data.train)
    # One half of the clean data gives the directions, and the other half of the examples is measured, clean and dirty.
    sets = {"noise_energy": inputs.samples, "noise_energy_clean": clean[1::2], "noise_energy_dirty": dirty[1::2]}
    return fidelity.noise_energy(sets, clean[::2], config.evaluation.noise_directions)


def _needs_directions(config, data):
    dimension, wanted = int(np.prod(data.train.shape[1:])), config.evaluation.noise_directions
    if wanted > dimension:
        raise InvalidArgument(f"evaluation.noise_directions={wanted} exceeds the {dimension} dimensions of the data")


def _needs_covariance(config, data):
    feature_metrics.check(config, data, needs_covariance=True)


def _with_references(outputs: dict[str, Output]) -> dict[str, Output]:
    """Adds NAME_dirty and NAME_clean for each name: the same numbers for the training data and for clean data."""
    dirty = {f"{name}_dirty": Output(f"{name} of the training data", None) for name in outputs}
    return outputs | dirty | {f"{name}_clean": Output(f"{name} of clean data", None) for name in outputs}


def _fidelity(name, compute, reads=(), requires=feature_metrics.check):
    return MetricSpec(
        compute,
        feature_metrics.OUTPUTS[name],
        requires,
        reads=(*feature_metrics.FEATURE_KEYS, *reads),
        note=feature_metrics.note,
        has_features=True,
    )


METRICS = {
    "plane": MetricSpec(
        _plane,
        {
            "off_plane_rms": Output("RMS distance to the plane; 0 is perfect"),
            "spread_ratio": Output("on-plane standard deviation over that of clean data; 1 is perfect", "one"),
        },
        requires=_needs_plane,
    ),
    "subspace": MetricSpec(
        _subspace,
        _with_references(
            {
                "subspace_distance": Output("RMS distance to the true subspace, in the data's units; 0 is perfect"),
                "subspace_psnr": Output("PSNR of samples against their projection to the true subspace, dB", "highest"),
                "principal_angle_mean": Output(
                    "mean angle between the true subspace and the PCA of the samples, degrees; 0: recovered"
                ),
                "principal_angle_max": Output("largest of these angles; 90: the samples lack a direction"),
            }
        ),
        requires=_needs_subspace,
    ),
    "wasserstein": MetricSpec(
        _wasserstein,
        {
            "w2": Output("exact 2-Wasserstein distance to as many clean points; of several parts, the root mean square"),
            "w2_floor": Output(
                "2-Wasserstein distance between two clean draws, about that of a perfect model; other draws differ by 10 %",
                None,
            ),
        },
        requires=_needs_points,
        reads=("evaluation.w2_points",),
    ),
    "score_error": MetricSpec(
        _score_error,
        {
            "score_error": Output(
                "mean square error of the score against the clean distribution's, in units of eps, over noise levels; 0 is "
                "perfect"
            ),
            "score_error_grid": Output("RMS error of x0hat on the grid of the score field, in the data's units"),
        },
        requires=_needs_distribution,
        reads=("evaluation.score_range", "evaluation.score_levels"),
        needs_model=True,
    ),
    "likelihood": MetricSpec(
        _likelihood,
        {"bits_per_dimension": Output("negative log-likelihood of clean points under the model, base 2, per dimension")},
        reads=(
            *(f"evaluation.likelihood_{key}" for key in ("points", "probes", "bin")),
            *("sampling.rtol", "sampling.atol"),
        ),
        needs_model=True,
    ),
    "noise_energy": MetricSpec(
        _noise_energy,
        {
            "noise_energy": Output(
                "RMS in the directions of smallest clean variance; above noise_energy_clean there is noise, below it signal "
                "is lost",
                "clean",
            ),
            "noise_energy_clean": Output("noise_energy of clean data", None),
            "noise_energy_dirty": Output("noise_energy of the training data", None),
        },
        requires=_needs_directions,
        reads=("evaluation.noise_directions",),
    ),
    "fd": _fidelity("fd", feature_metrics.frechet, ("evaluation.bootstrap",), _needs_covariance),
    "kid": _fidelity("kid", feature_metrics.kernel),
    "inception_score": _fidelity("inception_score", feature_metrics.score),
    "precision_recall": _fidelity("precision_recall", feature_metrics.precision_recall, feature_metrics.NEIGHBOURS),
    "density_coverage": _fidelity("density_coverage", feature_metrics.density_coverage, feature_metrics.NEIGHBOURS),
    "proximal_fd": MetricSpec(
        lambda config, inputs: proximal.compute(config, inputs, build_vectors(config)),
        proximal.OUTPUTS,
        requires=feature_metrics.check,
        reads=proximal.READS,
    ),
    "memorization": MetricSpec(memorization.compute, memorization.OUTPUTS),
}
