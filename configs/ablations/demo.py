"""What `make demo` runs: real handwriting, 90 % of it under noise; plain denoising against the robust objective."""

from configs import digits
from configs.ablation import list_of_runs


def get_config():
    return list_of_runs(
        name="demo",
        summary=(
            "Three models, trained on the same handwritten digits: nine in ten were noisy, and nothing told the models "
            "which. Plain denoising (ddpm) learns the noise along with the digits; adversarial training (robust_adv) learns "
            "less of it, for twice the time; robust_fast measures by itself where the noise is, and learns next to none of it, "
            "for little more than the time of ddpm. Both smooth the digits somewhat: fd sees more of that than of the noise, "
            "and the noise energy of robust_fast ends below that of clean digits."
        ),
        base=digits.get_config(),
        runs={name: {"variant": name} for name in ("ddpm", "robust_adv", "robust_fast")},
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
