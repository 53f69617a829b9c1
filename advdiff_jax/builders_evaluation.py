"""Config -> the exact law of a data set, and what is measured on a model rather than on its samples."""

import jax
import ml_collections
import numpy as np

from advdiff_jax.data import sources
from advdiff_jax.diffusion import exact
from advdiff_jax.evaluation import fields, ground_truth
from advdiff_jax.evaluation.fields import Model

EXACT_LAWS = {
    "plane3d": lambda c, source: exact.uniform_on_plane(source.plane, c.half_width),
    "mixture": lambda c, source: _mixture(c),
}

# (config, source, model) -> name -> number; with no model they only refuse what they cannot measure.
MODEL_METRICS = {
    "score_error": lambda config, source, model: _score_error(config, source, model),
    "likelihood": lambda config, source, model: _likelihood(config, source, model),
}


def _mixture(c):
    # Components of no width give away the means, which only the source knows how to draw.
    draws = sources.mixture(100 * c.components, c.seed, c.dim, c.components, c.spread, 0.0, 0.0).train
    means = np.unique(draws, axis=0)
    count = len(means)
    return exact.mixture(np.full(count, 1.0 / count), means, np.tile(c.component_std**2 * np.eye(c.dim), (count, 1, 1)))


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
    if section := fields.section(source.plane, clean.shape[1:]):
        found, wanted = (fields.score_field(one, section, c.field_levels, fields.limit(source)) for one in (model, truth))
        results["score_error_grid"] = ground_truth.grid_error(found, wanted)
    return results


def _likelihood(config, source, model):
    c = config.evaluation
    if model is None:
        return {}
    points = source.clean(np.random.default_rng(0), c.likelihood_points)
    return {
        "bits_per_dimension": ground_truth.bits_per_dimension(
            model, points, jax.random.key(0), c.likelihood_probes, c.likelihood_bin
        )
    }
