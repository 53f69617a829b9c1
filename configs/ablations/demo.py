"""What `make demo` runs: real handwriting, 90 % of it under noise; plain denoising against the robust objective."""

from configs import default, digits


def get_config():
    return default.ablation(
        name="demo",
        summary=(
            "Three models, trained on the same handwritten digits: nine in ten were noisy, and nothing told the models "
            "which. Plain denoising (ddpm) learns the noise along with the digits; adversarial training (robust_adv) does "
            "not, at the price of some smoothing; with a cutoff in its weight most of that price is refunded."
        ),
        base=digits.get_config(),
        runs={name: {"variant": name} for name in ("ddpm", "robust_adv", "robust_adv_cutoff")},
        seeds=(0,),
        metrics=(
            "noise_energy",
            "noise_energy_dirty",
            "noise_energy_clean",
            "fd_digits_cnn",
            "nn_distance_ratio",
            "train_seconds",
        ),
    )
