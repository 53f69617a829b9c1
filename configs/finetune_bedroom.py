"""Robust fine-tuning of google/ddpm-bedroom-256 on noisy LSUN bedrooms: --config.init_from=FOLDER."""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "finetune_bedroom"

    config.data.source = "tfds"
    config.data.tfds_name = "lsun/bedroom"  # 3,033,042 training images, the shorter side 256
    config.data.size = 256
    config.data.noise_std = 0.2  # the paper's s

    default.finetune(config)
    config.train.steps = 50_000  # one epoch
    config.train.batch_size = 64
    config.train.learning_rate = 2e-6  # a tenth of DDPM's for 256x256
    config.sampling.batch_size = 8
    config.evaluation.num_samples = 1000
    return with_variant(config, variant)
