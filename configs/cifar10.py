"""CIFAR-10 as the paper trains on it: Improved-DDPM's network (Nichol & Dhariwal 2021), T = 1000, with 90 % noisy images.

The paper's FID / IS against clean data (arXiv 2505.21742), 1000 sampling steps:

                   DDPM            Robust_adv     Robust_ran
    clean          7.20 / 8.95     28.68 / 7.04
    s = 0.1        58.05 / 6.93    24.70 / 7.21   79.21 / 5.21
    s = 0.2        102.68 / 4.19   24.81 / 7.07   68.04 / 4.34

and with fewer steps (300 / 500): DDPM 224.38 / 28.07, Robust_adv 37.89 / 24.34. The settings are those of
Improved-DDPM's CIFAR-10 run (openai/improved-diffusion, README), except T (there 4000) and the fixed variance.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "cifar10"

    config.data.source = "tfds"
    config.data.tfds_name = "cifar10"  # 50,000 training images
    config.data.size = 32
    config.data.noise_std = 0.1  # the paper's s: 0.1 and 0.2

    default.improved_ddpm(config)
    config.network.channel_mults = (1, 2, 2, 2)  # --image_size 32
    config.network.attention_resolutions = (16, 8)
    config.network.dropout = 0.3  # --dropout 0.3
    config.train.steps = 500_000  # cifar10_uncond_50M_500K
    # Not for larger images: it needs the spectrum of all dimensions.
    config.evaluation.metrics = (*config.evaluation.metrics, "noise_energy")
    config.evaluation.noise_directions = 1000  # of 3,072
    return with_variant(config, variant)
