"""Fashion-MNIST at 16x16, dirty, with methods ordered by what they are given: nothing, the noise's std, its labels, clean data.

A run of 3,000 steps takes about six minutes of one core, one of `robust_adv` twice as long.
"""

from configs import fashion_mnist
from configs.ablations.common import list_of_runs

# Images of the training set, without the held-out ones -> TFDS's split.
SIZES = {"20,000 images": ("train[:25000]", 5000), "2,000 images": ("train[:7000]", 5000)}


def methods():
    """Label -> overrides, ordered by what a method is given."""
    return {
        # nothing
        "ddpm": {"variant": "ddpm"},
        "robust_adv": {"variant": "robust_adv"},
        "robust_fast": {"variant": "robust_fast"},
        "discard_blind": {"variant": "discard_blind"},
        "ambient_blind": {"variant": "ambient_blind"},
        # the noise of each example
        "ambient_oracle": {"variant": "ambient_oracle"},
        # clean data, as many images
        "clean data": {"variant": "ddpm", "data": {"fraction": 0.0}},
    }


def get_config():
    base = fashion_mnist.get_config()
    base.data.size = 16
    base.data.pad = False
    base.network.base_channels = 24
    base.network.channel_mults = (1, 2)
    base.network.attention_resolutions = ()
    base.evaluation.features = "alexnet"
    base.evaluation.metrics = ("fd", "kid", "precision_recall", "noise_energy", "memorization")
    base.evaluation.noise_directions = 100  # of 256
    base.evaluation.diagnostics = ()
    runs, evaluations = {}, {}
    for size, (split, held_out) in SIZES.items():
        for label, overrides in methods().items():
            data = {**overrides.get("data", {}), "split": split, "held_out": held_out}
            runs[f"{size}/{label}"] = {**overrides, "data": data}
        evaluations[f"{size}/ddpm, final step"] = {
            "of": f"{size}/ddpm",
            "sampling": {"final_denoise": 0.2, "final_level": 0.2},
        }
        evaluations[f"{size}/ddpm, own final step"] = {
            "of": f"{size}/ddpm",
            "sampling": {"final_denoise": "measured", "final_level": 0.2, "final_own": True},
        }
    return list_of_runs(
        name="fashion_mnist_ladder",
        summary=(
            "Clothes at 16x16 pixels, nine in ten of them under noise, stored in 8 bits. Rows are ordered by what a method is "
            "given: nothing, the noise of each image, clean images. A final step is given the noise's std, or measures it."
        ),
        base=base,
        runs=runs,
        evaluations=evaluations,
        seeds=(0, 1, 2),
        metrics=(
            *("fd_alexnet", "fd_alexnet_dirty", "kid_alexnet", "precision", "recall"),
            *("noise_energy", "noise_energy_dirty", "noise_energy_clean"),
            *("nn_distance_ratio", "nn_distance_ratio_held_out", "network_evaluations", "train_seconds"),
        ),
        figures=("bars", "side_by_side"),
    )
