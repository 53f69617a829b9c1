"""Fashion-MNIST at 16x16, dirty, with methods ordered by what they are given: nothing, the noise's std, its labels, clean data.

A run of 1,500 steps takes about four minutes of one core, one of `robust_adv` twice as long.
"""

from configs import fashion_mnist
from configs.ablations.common import list_of_runs

# Setting -> keys of the data. TFDS's split counts the held-out images too.
SETTINGS = {
    "20,000 images": {"split": "train[:25000]", "held_out": 5000},
    "2,000 images": {"split": "train[:7000]", "held_out": 5000},
    "20,000 images, all noisy": {"split": "train[:25000]", "held_out": 5000, "fraction": 1.0},
}
# Without clean examples nothing is left to train on; a model of clean data is that of the first setting.
ONLY_WITH_CLEAN = ("discard_blind", "discard_blind_adv", "clean data")


def methods():
    """Label -> overrides, ordered by what a method is given."""
    return {
        # nothing
        "ddpm": {"variant": "ddpm"},
        "robust_adv": {"variant": "robust_adv"},
        "robust_fast": {"variant": "robust_fast"},
        "discard_blind": {"variant": "discard_blind"},
        "discard_blind_adv": {"variant": "discard_blind_adv"},
        "ambient_blind": {"variant": "ambient_blind"},
        "ambient_blind_adv": {"variant": "ambient_blind_adv"},
        # the noise of each example
        "ambient_oracle": {"variant": "ambient_oracle"},
        # clean data, as many images
        "clean data": {"variant": "ddpm", "data": {"fraction": 0.0}},
    }


# Rows that train nothing: label -> keys of the sampling.
FINAL_STEPS = {
    "ddpm, final step, told": {"final_denoise": 0.2},
    "ddpm, final step": {"final_denoise": "measured"},
    "ddpm, own final step": {"final_denoise": "measured", "final_own": True},
    "ddpm, final draw": {"final_denoise": "measured", "final_random": True},
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
    base.train.steps = 1500
    runs, evaluations = {}, {}
    for setting, data in SETTINGS.items():
        for label, overrides in methods().items():
            if label not in ONLY_WITH_CLEAN or data.get("fraction") != 1.0:
                runs[f"{setting}/{label}"] = {**overrides, "data": data | overrides.get("data", {})}
        for label, sampling in FINAL_STEPS.items():
            evaluations[f"{setting}/{label}"] = {"of": f"{setting}/ddpm", "sampling": sampling}
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
