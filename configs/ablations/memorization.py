"""Memorisation provoked: 100 handwritten digits, each seen 960 times, plain against robust; and 1,497 digits beside them."""

from configs import digits
from configs.ablations.common import list_of_runs

TOTAL = 1797  # digits in the source
VARIANTS = ("ddpm", "robust_adv", "robust_fast")


def get_config():
    base = digits.get_config()
    base.train.log_every, base.train.checkpoint_every = 500, 1_000_000
    base.evaluation.diagnostics, base.evaluation.field_levels = ("similarity",), ()
    few, all_but_few = {"held_out": TOTAL - 100}, {"held_out": 300}
    settings = {
        "clean_100": {"data": {**few, "fraction": 0.0}},
        "dirty_100": {"data": few},
        "dirty_1497": {"data": all_but_few},  # the usual number, where nothing should be found
    }
    return list_of_runs(
        name="memorization",
        summary="Digits, 100 or 1,497 of them, clean or 90 % under noise of std 0.2, 3,000 steps of 32. The other digits are "
        "held out, and calibrate the bound on near duplicates: 1 % of fresh digits are above it.",
        base=base,
        runs={f"{name}/{variant}": {"variant": variant, **data} for name, data in settings.items() for variant in VARIANTS},
        seeds=(0,),
        metrics=(
            "memorized_digits_cnn",
            "memorized_digits_cnn_expected",
            "nn_similarity_digits_cnn",
            "nn_similarity_digits_cnn_held_out",
            "nn_distance_ratio",
            "near_duplicates",
            "noise_energy",
            "fd_digits_cnn",
        ),
        figures=("grid", "side_by_side"),
    )
