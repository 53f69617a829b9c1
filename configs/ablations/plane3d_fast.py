"""Cheaper penalties: a late start, every k-th step, one example per group, the gradient of the denoising loss."""

from configs import plane3d
from configs.ablations.common import list_of_runs
from configs.ablations.plane3d_baselines import equal_evaluations

ADAPTIVE = {"variant": "robust_adaptive"}
RECIPES = {
    "late_50": {"start_step": 0.5},
    "late_75": {"start_step": 0.75},
    "every_2": {"lazy_interval": 2},
    "every_4": {"lazy_interval": 4},
    "group_4": {"group_size": 4},
    "group_8": {"group_size": 8},
    "group_32": {"group_size": 32},
    "every_2_group_8": {"lazy_interval": 2, "group_size": 8},
    # Along the gradient of the denoising loss, which its backward pass holds. Here it costs an ascent of its own. Sharing it
    # is not worth while: it leaves 40 % more noise than FGSM on the shift, and a shared backward pass would save one
    # evaluation of eight. No direction outlives a step, because example, noise and time are drawn anew.
    "free_direction": {"maximize": "denoising", "random_start": False, "step_size": 1.0},
    "free_direction_group_16": {"maximize": "denoising", "random_start": False, "step_size": 1.0, "group_size": 16},
}


def get_config():
    base = equal_evaluations(plane3d.get_config())
    base.train.budget_evaluations, base.train.steps = 0, 4000  # equal steps: flops_per_step shows the savings
    return list_of_runs(
        name="plane3d_fast",
        summary="The adaptive cutoff with its penalty in full, late, lazily or on part of the batch, for as many steps, on "
        "points of a plane of which 90 % carry noise of std 0.1.",
        base=base,
        runs={name: {"variant": name} for name in ("ddpm", "robust_adaptive", "robust_fast")}
        | {name: {**ADAPTIVE, "robust": recipe} for name, recipe in RECIPES.items()},
        seeds=(0, 1, 2),
        metrics=("off_plane_rms", "spread_ratio", "w2", "flops_per_step", "network_evaluations", "train_seconds"),
    )
