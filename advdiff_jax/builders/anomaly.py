"""Config -> anomalies: the scores of pixels by a model over t*, and by principal components."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax import rng
from advdiff_jax.builders.corruptions import build_foreign
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.denoising import build_trips, in_batches
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.data.image_corruptions import missing_block_mask
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import anomaly

OUTPUTS = {
    "anomaly_level": Output("noise level sigma / alpha at t* of the largest AUROC", None),
    "anomaly_*_image_auroc": Output("area under the ROC curve over images, by the largest score of each", "highest"),
    "anomaly_*_auroc": Output(
        "area under the ROC curve over pixels: one_U in one step, sampler_U by the sampler, pca_K", "highest"
    ),
    "anomaly_*_auprc": Output("area under the precision-recall curve over the same pixels", "highest"),
    "anomaly_auroc": Output("the largest AUROC of the model over t* and ways, chosen on these images", "highest"),
    "anomaly_auprc": Output("AUPRC at the same place", "highest"),
    "anomaly_share": Output("share of the pixels that are planted, which is the AUPRC of chance", None),
}


class Planted(NamedTuple):
    """Images in which patches are planted.

    Attributes:
        x: [N, H, W, C], in [-1, 1].
        truth: which pixels are planted, [N, H, W].
        words: whose images they are.
    """

    x: np.ndarray
    truth: np.ndarray
    words: str


def build_planted(config: ml_collections.ConfigDict, data: Data) -> Planted:
    """Plants patches of `anomaly.source` in every second held-out image, stored as the data are.

    Raises:
        UserError: the data are no images, or none are held out.
    """
    if len(data.train.shape) != 4:
        raise UserError(f"--mode=anomaly needs images, and config.data.source={config.data.source} has none")
    if data.held_out is None:
        raise UserError("--mode=anomaly plants patches in images that the model has not seen: set config.data.held_out above 0")
    count = min(config.anomaly.examples, len(data.held_out))
    clean = pixels.evenly_spaced(data.held_out, count)
    with as_user_error("config.anomaly"):
        mask = missing_block_mask(config.anomaly.patch_side)
    others = _others(config, data.source.train)
    x, truth = anomaly.planted(clean, others, mask, config.evaluation.seed)
    x = pixels.to_float(pixels.as_stored(x, data.train.dtype))
    return Planted(x, truth, f"{count:,} held-out images, every second with a patch of {config.anomaly.source}")


def _others(config, clean):
    section = config.data.copy_and_resolve_references()
    with section.unlocked():
        for key in ("source", "path", "tfds_name"):
            section[f"foreign_{key}"] = config.anomaly[key]
    return build_foreign(section, clean)


def scores(config: ml_collections.ConfigDict, data: Data, predict: Callable, x: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the score of each pixel [N, H, W], by `one_U` and `sampler_U` for each level u, and `pca_K`.

    Args:
        config: reads `anomaly` and `sampling`.
        data: of the run; principal components are those of its training set, as the model saw it.
        predict: (x [B, ...], t [B]) -> the network's prediction.
        x: images, [N, H, W, C].

    Raises:
        UserError: a sampler without a grid, no level, or no or too many components.
    """
    c, found = config.anomaly, {}
    for key in ("levels", "components"):
        if not c[key]:
            raise UserError(f"config.anomaly.{key}=() names nothing to judge: set one at least")
    keys = jax.random.split(jax.random.key(config.evaluation.seed), len(x))
    for trip in build_trips(config, predict, c.levels):
        for name, way in (("one", trip.one_step), ("sampler", trip.back)):
            restored = [in_batches(way, rng.fold_in(keys, i), x, config.sampling.batch_size) for i in range(c.draws)]
            found[f"{name}_{trip.u:.2g}"] = anomaly.residual(x, np.stack(restored))
    for count in c.components:
        with as_user_error("config.anomaly"):
            project = anomaly.principal_components(data.train, count)
        found[f"pca_{count}"] = anomaly.residual(x, project(x)[None])
    return found


def numbers(truth: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the numbers of `OUTPUTS`; raises UserError where no pixel is planted, or all are."""
    with as_user_error("config.anomaly"):
        each = {name: anomaly.areas(truth, score) for name, score in found.items()}
    areas = {f"anomaly_{name}_{kind}": value for name, kinds in each.items() for kind, value in kinds.items()}
    best = best_of(areas, [name for name in found if not is_rival(name)])
    return {
        "anomaly_auroc": each[best]["auroc"],
        "anomaly_auprc": each[best]["auprc"],
        "anomaly_level": float(best.partition("_")[2]),
        "anomaly_share": float(np.mean(truth)),
        **areas,
    }


def is_rival(name: str) -> bool:
    """Says whether a score is that of principal components, not of the model."""
    return name.startswith("pca_")


def best_of(areas: dict[str, float], names: list[str]) -> str:
    """Returns the name of the score of the largest AUROC."""
    return max(names, key=lambda name: areas[f"anomaly_{name}_auroc"])
