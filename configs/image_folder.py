"""Your own images, in a folder, zip or tar: --config.data.path=FOLDER. Improved-DDPM's 64x64 network, T = 1000.

They are trained on as they are, by `ambient_blind` unless a variant is named: whether they are dirty is measured.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "image_folder"

    config.data.source = "folder"
    config.data.path = ""  # name it on the command line
    config.data.size = 64
    config.data.fraction = 0.0  # nothing is added; a study of added noise sets a share
    config.data.noise_std = 0.2  # of the noise that is added

    default.improved_ddpm(config)
    config.data.flip = False  # mirrored text, or left and right, may be wrong for these images
    config.network.channel_mults = (1, 2, 3, 4)  # --image_size 64
    config.network.attention_resolutions = (16, 8)
    config.train.steps = 500_000
    return with_variant(config, variant, default="ambient_blind")
