"""Fashion-MNIST (Xiao et al. 2017) padded to 32x32, with 90 % noisy images: real images, and a network for two CPU cores.

Its four archives, under their upstream names, are in the Debian package `dataset-fashion-mnist`. Debian packs them again, so
their checksums are not those that TFDS knows:

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/fashion_mnist.py --mode=prepare \
        --config.data.manual_dir=/usr/share/datasets/fashion-mnist --config.data.check_archives=False

Without `manual_dir` TFDS downloads them. The network has 686,769 parameters; a step of ddpm on 32 images takes about 0.45 s of
one core, a step of robust_adv 1.2 s, and its 3,000 steps an hour.
"""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "fashion_mnist"

    config.data.source = "tfds"
    config.data.tfds_name = "fashion_mnist"  # 60,000 training images of 28x28
    config.data.size = 32  # or 28, without a border
    config.data.pad = True
    config.data.channels = 1
    config.data.held_out = 5000  # against which memorisation and denoising are measured
    config.data.noise_std = 0.2  # the paper's s: 0.1 and 0.2

    config.network.kind = "unet"
    config.network.base_channels = 16
    config.network.channel_mults = (1, 2, 4)
    config.network.res_blocks = 1
    config.network.attention_resolutions = (8,)
    config.network.heads = 4

    config.train.steps = 3000
    config.train.batch_size = 32
    config.train.learning_rate = 1e-3
    config.train.checkpoint_every = 500
    config.robust.cut = config.data.get_ref("noise_std") / 2

    # 25 evaluations a sample instead of 1000. The paper's: --config.sampling.method=ddpm --config.sampling.grid=uniform
    # --config.sampling.steps=1000
    config.sampling.method = "dpm_solver_2m"
    config.sampling.grid = "log_snr"
    config.sampling.steps = 25
    config.sampling.clip = 1.0
    config.sampling.batch_size = 250
    config.evaluation.metrics = (*default.FIDELITY, "noise_energy", "memorization")
    config.evaluation.features = "inception"  # vgg16 where no evaluation.weights are named, with a line that says so
    config.evaluation.noise_directions = 300  # of 1,024
    config.evaluation.num_samples = 2000
    config.evaluation.max_reference = 10_000  # clean and dirty images; VGG16 reads about 115 a second on a core
    return with_variant(config, variant)
