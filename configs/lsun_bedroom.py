"""LSUN bedrooms at 64x64, as the paper trains on them; `--config.data.size=256` with the settings below for 256.

The paper's FID / IS against clean data (arXiv 2505.21742) at s = 0.2: DDPM 95.85 / 4.08, Robust_adv 44.27 / 2.50.
Improved-DDPM's own run at 256x256: channel_mults (1,1,2,2,4,4), res_blocks 2, heads 1, scale_shift False,
attention_resolutions (16,), the linear schedule with T = 1000, learning rate 1e-4, 1.2 million steps.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "lsun_bedroom"

    config.data.source = "tfds"
    config.data.tfds_name = "lsun/bedroom"  # 3,033,042 training images, the shorter side 256
    config.data.size = 64  # or 256
    config.data.noise_std = 0.2  # the paper's s

    default.improved_ddpm(config)
    config.network.channel_mults = (1, 2, 3, 4)  # --image_size 64
    config.network.attention_resolutions = (16, 8)
    config.diffusion.schedule = "vp_linear"  # --noise_schedule linear
    config.train.steps = 1_200_000  # lsun_uncond_100M_1200K
    return with_variant(config, variant)
