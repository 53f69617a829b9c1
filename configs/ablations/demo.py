"""What `make demo` runs: handwriting, 90 % of it under heavy noise; plain denoising against the robust objective."""

from configs import digits
from configs.ablations.common import list_of_runs


def get_config():
    base = digits.get_config()
    base.data.noise_std = 0.4  # a fifth of the range from black to white: the eye sees it, in the data and in samples
    return list_of_runs(
        name="demo",
        summary=(
            "Three models, trained on the same handwritten digits: nine in ten are noisy, and no model knows which. Plain "
            "denoising (ddpm) learns to draw the noise as well. Robust training keeps most of it out, and smooths the digits: "
            "fd_digits_cnn, which hardly sees noise, shows that."
        ),
        base=base,
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
        figures=("side_by_side",),
    )
