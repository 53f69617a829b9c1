"""A trained model as it is, without training: --config.init_from=FOLDER, a model in diffusers' layout or a workdir.

Network and process are those of the model. So are the image size, the sampler and its clipping of a model in diffusers' layout,
unless they are set on the command line. Photographs stand where no data are named: --config.data.source=folder
--config.data.path=IMAGES compares with others.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "pretrained"

    config.data.source = "photo_crops"
    config.data.num_examples = 256
    config.data.fraction = 0.0  # the data that are named are compared with as they are

    config.network.kind = "pretrained"
    config.sampling.steps = 1000
    config.sampling.batch_size = 16
    config.evaluation.metrics = ("memorization",)
    config.evaluation.diagnostics = ()
    config.evaluation.num_samples = 64
    return with_variant(config, variant or "ddpm")
