"""scikit-learn's 1,797 handwritten digits (8x8, real, shipped in the package), 90 % of them under noise of std 0.2."""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "digits"

    config.data.source = "digits"
    config.data.noise_std = 0.2  # in [-1, 1]

    config.network.kind = "unet"
    config.network.base_channels = 16
    config.network.channel_mults = (1, 1)
    config.network.res_blocks = 1
    config.network.attention_resolutions = (4,)
    config.network.heads = 2

    config.train.steps = 3000
    config.train.batch_size = 32
    config.robust.cut = config.data.get_ref("noise_std") / 2

    config.sampling.steps = 100
    config.sampling.batch_size = 500
    config.evaluation.metrics = ("noise_energy", "fd", "memorization")
    config.evaluation.num_samples = 1000
    return with_variant(config, variant)
