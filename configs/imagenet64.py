"""ImageNet at 64x64 (van den Oord et al. 2016), as Improved-DDPM and the paper train on it, without classes.

The paper's FID against clean data (arXiv 2505.21742) at s = 0.1 / 0.2: DDPM 97.6 / 129.4, Robust_adv 83.8 / 80.3.
The archives train_64x64.tar and valid_64x64.tar are no longer public at their old address: with an account get them from
image-net.org, and name their folder with --config.data.manual_dir. TFDS's `imagenet_resized/64x64` is another resize.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "imagenet64"

    config.data.source = "tfds"
    config.data.tfds_name = "downsampled_imagenet/64x64"  # 1,281,149 training images
    config.data.size = 64
    config.data.noise_std = 0.1  # the paper's s: 0.1 and 0.2

    default.improved_ddpm(config)
    config.network.channel_mults = (1, 2, 3, 4)  # --image_size 64
    config.network.attention_resolutions = (16, 8)
    config.train.steps = 1_500_000  # imagenet64_uncond_100M_1500K
    return with_variant(config, variant)
