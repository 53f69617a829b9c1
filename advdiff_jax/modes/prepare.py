"""`--mode=prepare`: gets the data, once, and previews them."""

import pathlib

import ml_collections

from advdiff_jax.builders.data import prepare_data
from advdiff_jax.modes import preview
from advdiff_jax.training import parallel


@parallel.on_first_process
def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Downloads and prepares what the config's source reads, then writes `folder`/preview; returns its report."""
    prepare_data(config)
    return preview.write(config, folder)
