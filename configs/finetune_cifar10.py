"""Robust fine-tuning on noisy CIFAR-10 of google/ddpm-cifar10-32: --config.init_from=FOLDER; or of any model of 32x32 images.

100 epochs, as the paper fine-tunes (arXiv 2505.21742: CelebA at s = 0.2, FID 25.8 against 16.53 from the start).
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "finetune_cifar10"

    config.data.source = "tfds"
    config.data.tfds_name = "cifar10"  # 50,000 training images
    config.data.size = 32
    config.data.noise_std = 0.1  # the paper's s: 0.1 and 0.2

    default.finetune(config)
    config.network.dropout = 0.1  # DDPM's for CIFAR-10
    config.train.steps = 39_000
    config.train.batch_size = 128
    config.train.learning_rate = 2e-5  # a tenth of DDPM's
    config.sampling.batch_size = 64
    config.evaluation.metrics = (*config.evaluation.metrics, "noise_energy")
    config.evaluation.noise_directions = 1000  # of 3,072
    return with_variant(config, variant)
