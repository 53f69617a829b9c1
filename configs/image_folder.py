"""Any folder of images, or a zip or tar of them: --config.data.path=FOLDER. Improved-DDPM's 64x64 network, T = 1000."""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "image_folder"

    config.data.source = "folder"
    config.data.path = ""  # name it on the command line
    config.data.size = 64
    config.data.noise_std = 0.2  # of 90 % of the images; for images that are dirty already: --config.data.fraction=0

    default.improved_ddpm(config)
    config.data.flip = False  # mirrored text, or left and right, may be wrong for these images
    config.network.channel_mults = (1, 2, 3, 4)  # --image_size 64
    config.network.attention_resolutions = (16, 8)
    config.train.steps = 500_000
    return with_variant(config, variant)
