"""Every variant on the oblique plane, clean and dirty (method.md section 3, table 4): 30 runs of under a minute."""

from configs import default, plane3d


def get_config():
    return default.ablation(
        name="plane3d_variants",
        summary="Every variant on points of an oblique plane in R^3, trained on clean data and on data that are 90 % noisy.",
        base=plane3d.get_config(),
        runs={
            f"p{int(100 * fraction)}_{variant}": {"variant": variant, "data": {"fraction": fraction}}
            for fraction in (0.0, 0.9)
            for variant in default.VARIANTS
        },
        seeds=(0, 1, 2),
        metrics=("off_plane_rms", "spread_ratio", "w2", "w2_floor", "score_error", "train_seconds"),
    )
