"""Digits with 1, 3, 5 and 10 % of photo crops, made grey and as small, among them: which method draws fewest of the crops?

A run of `ddpm` takes about half a minute of one core, one of `robust_adv` a minute and a half; the list, twenty minutes.
"""

from configs import digits
from configs.ablations.common import list_of_runs

VARIANTS = ("ddpm", "robust_adv", "robust_fast", "huber")


def get_config():
    base = digits.get_config()
    base.data.corruptions = ("foreign_outlier",)
    base.data.held_out = 300
    base.train.steps = 1000
    base.train.log_every, base.train.checkpoint_every = 500, 1_000_000
    base.sampling.method, base.sampling.steps = "ddim", 25
    base.evaluation.metrics, base.evaluation.diagnostics = ("fd",), ("foreign",)
    return list_of_runs(
        name="foreign",
        summary="Digits, a few per cent of them replaced by crops of photographs, 1,000 steps of 32. No model is given which.",
        base=base,
        runs={
            f"p{percent:02d}/{variant}": {
                "variant": variant,
                "data": {"fraction": percent / 100},
            }
            for percent in (1, 3, 5, 10)
            for variant in VARIANTS
        },
        seeds=(0,),
        metrics=(
            *("foreign_share", "foreign_share_dirty", "foreign_share_clean", "foreign_nearest", "foreign_nearest_dirty"),
            *("foreign_loss_auc", "foreign_typicality_auc", "fd_digits_cnn"),
        ),
        figures=("grid", "side_by_side"),
    )
