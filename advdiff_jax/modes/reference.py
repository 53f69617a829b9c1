"""`--mode=reference`: writes the statistics of a config's clean images that Fréchet and kernel distances compare with."""

import logging
import pathlib

import ml_collections

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.features import build_features, check_features
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.evaluation import fidelity, reference
from advdiff_jax.features.network import extract
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


@parallel.on_first_process
def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes `mu`, `sigma` and the features themselves to `folder`/reference/FEATURES.npz; returns the file.

    At most `evaluation.max_reference` images are read; their features lie in memory, 8 kB an image for Inception.

    Raises:
        UserError: the data or the network's weights cannot be read, or do not fit each other.
    """
    data = build_data(config)
    with as_user_error("config.evaluation.features"):
        check_features(config, tuple(data.train.shape[1:]))
    network, c = build_features(config), config.evaluation
    images = pixels.evenly_spaced(data.source.train, c.max_reference)
    vectors = extract(network, images, c.features_batch, parallel.parallel_apply(network.apply, network.params)).vectors
    path = folder / "reference" / f"{c.features}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    reference.write(path, c.features, fidelity.moments([vectors]), vectors)
    log.info(
        "%d features of %s clean images of %s; compare with them: --config.evaluation.reference=%s",
        network.dimension,
        f"{len(vectors):,} of {len(data.source.train):,}",
        config.name,
        path,
    )
    return path
