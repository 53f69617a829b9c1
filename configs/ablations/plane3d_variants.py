"""The paper's variants, and a cutoff, on the plane, clean and dirty: 30 short runs."""

from configs import plane3d
from configs.ablations.common import list_of_runs

VARIANTS = ("ddpm", "invariance", "robust_ran", "robust_adv", "robust_adv_cutoff")


def get_config():
    return list_of_runs(
        name="plane3d_variants",
        summary="The paper's variants, and a cutoff, on points of an oblique plane in R^3, clean and 90 % noisy.",
        base=plane3d.get_config(),
        runs={
            f"p{int(100 * fraction)}_{variant}": {"variant": variant, "data": {"fraction": fraction}}
            for fraction in (0.0, 0.9)
            for variant in VARIANTS
        },
        seeds=(0, 1, 2),
        metrics=("off_plane_rms", "spread_ratio", "w2", "w2_floor", "score_error", "train_seconds"),
    )
