"""Robust fine-tuning of google/ddpm-celebahq-256: --config.init_from=FOLDER --config.data.path=IMAGES, noisy faces of 256x256.

Images that are dirty already: --config.data.fraction=0.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "finetune_celebahq"

    config.data.source = "folder"
    config.data.path = ""  # name it on the command line; CelebA-HQ has 30,000 images
    config.data.size = 256
    config.data.noise_std = 0.2  # the paper's s

    default.finetune(config)
    config.train.steps = 50_000  # 100 epochs
    config.train.batch_size = 64
    config.train.learning_rate = 2e-6  # a tenth of DDPM's for 256x256
    config.sampling.batch_size = 8
    config.evaluation.num_samples = 1000
    return with_variant(config, variant)
