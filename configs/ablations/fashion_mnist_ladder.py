"""Fashion-MNIST at 16x16, dirty, with methods ordered by what they are given: nothing, the noise of each image, clean data.

A row has the network evaluations of 1,500 plain steps, and takes about four minutes of one core.
"""

from configs import fashion_mnist
from configs.ablations.common import ladder, list_of_runs

# Setting -> keys of the data. TFDS's split counts the held-out images too.
SETTINGS = {
    "20,000 images": {"split": "train[:25000]", "held_out": 5000},
    "2,000 images": {"split": "train[:7000]", "held_out": 5000},
    "20,000 images, all noisy": {"split": "train[:25000]", "held_out": 5000, "fraction": 1.0},
}
METRICS = (
    *("fd_alexnet", "fd_alexnet_dirty", "kid_alexnet", "precision", "recall"),
    *("noise_energy", "noise_energy_dirty", "noise_energy_clean"),
    *("nn_distance_ratio", "nn_distance_ratio_held_out", "network_evaluations", "train_seconds"),
)


def small(base):
    """Sets a network for 16x16 images and two CPU cores, and what is measured."""
    base.network.base_channels = 24
    base.network.channel_mults = (1, 2)
    base.network.attention_resolutions = ()
    base.evaluation.features = "alexnet"
    base.evaluation.metrics = ("fd", "kid", "precision_recall", "noise_energy", "memorization")
    base.evaluation.noise_directions = 100
    base.evaluation.diagnostics = ()
    base.train.budget_evaluations = 3 * 32 * 1500  # those of 1,500 plain steps
    return base


def get_config():
    base = small(fashion_mnist.get_config())
    base.data.size = 16
    base.data.pad = False
    return list_of_runs(
        name="fashion_mnist_ladder",
        summary=(
            "Clothes at 16x16 pixels, nine in ten of them under noise, or all, stored in 8 bits. Rows are ordered by what a "
            "method is given: nothing, the noise of each image, clean images. A final step is given the noise's std, or "
            "measures it."
        ),
        base=base,
        **ladder(SETTINGS, base),
        seeds=(0, 1, 2),
        metrics=METRICS,
        figures=("bars", "side_by_side"),
    )
