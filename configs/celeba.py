"""CelebA, 64x64 centre crops, as the paper trains on it: Improved-DDPM's network, T = 1000, with 90 % noisy images.

The paper's FID / IS against clean data (arXiv 2505.21742) at s = 0.2: DDPM 96.03 / 2.65, Robust_adv 16.53 / 2.11 (25.8
with the penalty in the last 100 epochs only).
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "celeba"

    config.data.source = "tfds"
    config.data.tfds_name = "celeb_a"  # 162,770 training images of 178x218
    config.data.size = 64
    config.data.crop = 0  # the whole width of 178, as Improved-DDPM's loader crops; score_sde keeps 140
    config.data.noise_std = 0.2  # the paper's s

    default.improved_ddpm(config)
    config.network.channel_mults = (1, 2, 3, 4)  # --image_size 64
    config.network.attention_resolutions = (16, 8)
    config.train.steps = 500_000  # as CIFAR-10; neither paper names a number
    return with_variant(config, variant)
