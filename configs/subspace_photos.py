"""Colour images of a linear subspace, the paper's butterflies idea: 32x32 crops of photographs, 32 components.

The photographs ship in scikit-learn and scikit-image. A folder of images (butterflies, say) works the same:
--config.data.base=folder --config.data.path=FOLDER. The paper's figure has p = 0.9; errors are exact.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "subspace_photos"

    config.data.source = "linear_subspace"
    config.data.base = "photo_crops"
    config.data.num_examples = 8000
    config.data.size = 32
    config.data.subspace_dim = 32  # 90 % of the variance
    config.data.noise_std = 0.2  # in [-1, 1]

    config.network.kind = "unet"
    config.network.base_channels = 32
    config.network.channel_mults = (1, 2, 2)
    config.network.res_blocks = 1
    config.network.attention_resolutions = (8,)

    config.train.steps = 10_000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-3
    config.robust.cut = config.data.get_ref("noise_std") / 2

    config.sampling.batch_size = 250
    config.evaluation.metrics = ("subspace", "memorization")
    return with_variant(config, variant)
