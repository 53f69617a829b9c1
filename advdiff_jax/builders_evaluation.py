"""Config -> what is measured: on samples, and on the model that drew them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import builders_objectives, builders_process, builders_transfer
from advdiff_jax.builders_data import Data
from advdiff_jax.choices import pick, refused
from advdiff_jax.data import sources, subspace, wire
from advdiff_jax.diffusion import exact
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import fidelity, fields, ground_truth, inner, memorization
from advdiff_jax.evaluation.features import FEATURES
from advdiff_jax.evaluation.fields import Model
from advdiff_jax.objectives.denoising import no_variance
from advdiff_jax.perturbation.ball import BALLS

INNER_EXAMPLES, INNER_BATCH = 512, 64  # looked at by the detector of overfitting, and how many at once
INNER_TIMES = 4096  # times of training among which it chooses
LOOKS = ("transfer", "inner")  # see `run`
CHECKED = 256  # examples of a reference set that are looked at where only mistakes are looked for

EXACT_LAWS = {
    "plane3d": lambda c, source: exact.uniform_on_plane(source.plane, c.half_width),
    "mixture": lambda c, source: exact.mixture(
        np.full(c.components, 1.0 / c.components),
        sources.mixture_means(c.dim, c.components, c.spread),
        np.tile(c.component_std**2 * np.eye(c.dim), (c.components, 1, 1)),
    ),
    "gaussian": lambda c, source: exact.mixture(
        np.ones(1), np.zeros((1, len(c.stds))), np.diag(np.square(np.asarray(c.stds, float)))[None]
    ),
}


class Judged(NamedTuple):
    """What a metric may look at.

    Attributes:
        samples: [N, ...].
        clean: () -> N clean examples, another draw at each call.
        reference: a data set -> at most `evaluation.max_reference` of its examples, as floats.
        model: what drew the samples; None where only mistakes are looked for, and nothing is measured on it.
    """

    samples: np.ndarray
    clean: Callable[[], np.ndarray]
    reference: Callable[[wire.Examples], np.ndarray]
    model: Model | None


METRICS = {
    "plane": lambda config, data, judged: _plane(data, judged),
    "subspace": lambda config, data, judged: _subspace(config, data, judged),
    "wasserstein": lambda config, data, judged: _wasserstein(config, judged),
    "score_error": lambda config, data, judged: _score_error(config, data.source, judged.model),
    "likelihood": lambda config, data, judged: _likelihood(config, data.source, judged.model),
    "noise_energy": lambda config, data, judged: _noise_energy(config, data, judged),
    "fd": lambda config, data, judged: _frechet(config, data, judged),
    "memorization": lambda config, data, judged: memorization.nearest_neighbours(judged.samples, judged.reference(data.train)),
}


def evaluate(
    config: ml_collections.ConfigDict, data: Data, samples: np.ndarray, model: Model | None = None
) -> dict[str, float]:
    """The metrics of a set of samples; a run calls it on a few training examples first, so that mistakes show early.

    Args:
        config: reads `evaluation`.
        data: what the model was trained on, and the clean truth.
        samples: [N, ...].
        model: what drew them; None where only mistakes are looked for: references are cut short then.

    Returns:
        name -> number, for every entry of `evaluation.metrics`.

    Raises:
        UserError: an unknown metric, or one that the data cannot have.
    """
    if unknown := [name for name in config.evaluation.looks if name not in LOOKS]:
        raise UserError(f"config.evaluation.looks: {unknown[0]!r} is not known: choose among {', '.join(LOOKS)}")
    rng = np.random.default_rng(0)  # the same clean draws for every run: distances differ by the samples alone
    most = CHECKED if model is None else config.evaluation.max_reference
    judged = Judged(samples, lambda: data.source.clean(rng, len(samples)), lambda examples: wire.spread(examples, most), model)
    results = {}
    for name in config.evaluation.metrics:
        if name not in METRICS:
            raise UserError(f"config.evaluation.metrics: {name!r} is not known: choose among {', '.join(METRICS)}")
        with refused(f"config.evaluation.metrics: {name}"):
            results |= METRICS[name](config, data, judged)
    return results


def _noise_energy(config, data, judged):
    clean = judged.reference(data.source.train)
    return {
        f"noise_energy{suffix}": fidelity.noise_energy(x, clean, config.evaluation.noise_directions)
        for suffix, x in [("", judged.samples), ("_clean", clean), ("_dirty", judged.reference(data.train))]
    }


def _subspace(config, data, judged):
    truth = data.source.subspace
    if truth is None:
        raise ValueError(f"the source {config.data.source} has no linear subspace")
    results = {}
    for suffix, x in [("", judged.samples), ("_dirty", judged.reference(data.train)), ("_clean", judged.clean())]:
        angles = subspace.principal_angles(x, truth)
        numbers = {"principal_angle_mean": float(angles.mean()), "principal_angle_max": float(angles.max())}
        results |= {f"{name}{suffix}": value for name, value in (subspace.distances(x, truth) | numbers).items()}
    return results


def _wasserstein(config, judged):
    distance = functools.partial(ground_truth.wasserstein2_in_parts, points=config.evaluation.w2_points)
    return {"w2": distance(judged.samples, judged.clean()), "w2_floor": distance(judged.clean(), judged.clean())}


def _plane(data, judged):
    if data.source.plane is None:
        raise ValueError("these data have no plane")
    return ground_truth.plane(judged.samples, judged.clean(), data.source.plane)


def _frechet(config, data, judged):
    name = config.evaluation.features
    features = pick(FEATURES, config, "evaluation.features")(config.evaluation.cache_dir)
    clean = features(judged.reference(data.source.train))
    return {
        f"fd_{name}": fidelity.frechet_distance(features(judged.samples), clean),
        f"fd_{name}_dirty": fidelity.frechet_distance(features(judged.reference(data.train)), clean),
    }


def exact_law(config: ml_collections.ConfigDict, source: sources.Source) -> exact.Law | None:
    """The law of the clean data that a config names, or None where it is not known."""
    name = config.data.source
    return EXACT_LAWS[name](config.data, source) if name in EXACT_LAWS else None


def _known_law(config, source):
    law = exact_law(config, source)
    if law is None:
        raise ValueError(f"the law of config.data.source={config.data.source!r} is not known, only {', '.join(EXACT_LAWS)}")
    return law


def _score_error(config, source, model):
    c, law = config.evaluation, _known_law(config, source)
    if model is None:
        return {}
    truth = Model(model.schedule, exact.denoiser(law, model.schedule))
    clean = source.clean(np.random.default_rng(0), c.num_samples)
    levels = np.geomspace(*c.score_range, c.score_levels)
    results = {"score_error": ground_truth.score_error(model, truth, clean, levels, jax.random.key(0))}
    section = fields.section(source.plane, clean.shape[1:])
    if section and c.field_levels:
        found, wanted = (fields.score_field(one, section, c.field_levels, fields.limit(source)) for one in (model, truth))
        results["score_error_grid"] = ground_truth.grid_error(found, wanted)
    return results


def _likelihood(config, source, model):
    c = config.evaluation
    if model is None or builders_objectives.entry(config).lowest(config):  # there is no density below the level of a guess
        return {}
    points = source.clean(np.random.default_rng(0), c.likelihood_points)
    return {
        "bits_per_dimension": ground_truth.bits_per_dimension(
            model, points, jax.random.key(0), c.likelihood_probes, c.likelihood_bin
        )
    }


def inner_maximisation(
    config: ml_collections.ConfigDict, data: Data, predict: Callable, noise_level: float | None = None
) -> dict[str, float]:
    """Whether an adversarially trained network hides from its own perturbation (`evaluation.inner`), on its training data.

    Args:
        config: reads `objective`, `criterion`, `robust`, `diffusion`.
        data: examples of its training set are used, with keys that are the same for every run.
        predict: (x [B, ...], t [B]) -> the network's prediction.
        noise_level: what the run has measured, for a weight that follows it.

    Returns:
        name -> ratio of second terms; empty for objectives without an inner maximisation, or whose term has no weight.
    """
    if builders_objectives.entry(config).blame is None or config.robust.perturbation != "adversarial":
        return {}
    schedule, ball = builders_process.build_schedule(config), pick(BALLS, config, "robust.ball")
    process = schedule, builders_process.build_prediction(config, schedule).parameterization, no_variance
    law = builders_transfer.build_law(config, lambda: noise_level)
    x0 = wire.spread(data.train, INNER_EXAMPLES)
    drawn = schedule.training_time((jnp.arange(INNER_TIMES) + 0.5) / INNER_TIMES)
    kappas = law.at(schedule.noise_to_signal(drawn)).kappa
    if not jnp.sum(kappas) > 0.0:
        return {}
    chosen = jax.random.permutation(jax.random.key(1), inner.where_it_acts(kappas, len(x0)))
    t, kappa = drawn[chosen], kappas[chosen]

    build = functools.partial(builders_objectives.build_equivariance, config, process, noise_level, one_in=1)
    terms = jax.jit(functools.partial(inner.second_terms, build, ball, predict))
    keys = jax.random.split(jax.random.key(0), len(x0))
    whole = max(INNER_BATCH, len(x0) // INNER_BATCH * INNER_BATCH)  # batches of one shape: one program
    found = [
        terms(*(value[i : i + INNER_BATCH] for value in (keys, x0, t, kappa)))
        for i in range(0, min(whole, len(x0)), INNER_BATCH)
    ]
    return inner.ratios(jax.tree.map(lambda *parts: jnp.concatenate(parts), *found))
