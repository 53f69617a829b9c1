"""What of the second term can be left out: late, in every k-th step, on one example of m, along the free gradient."""

from configs import plane3d
from configs.ablation import list_of_runs
from configs.ablations.plane3d_neighbours import equal_evaluations

ADAPTIVE = {"variant": "robust_adaptive"}
RECIPES = {
    "late_50": {"start_step": 0.5},
    "late_75": {"start_step": 0.75},
    "every_2": {"every": 2},
    "every_4": {"every": 4},
    "one_in_4": {"one_in": 4},
    "one_in_8": {"one_in": 8},
    "one_in_32": {"one_in": 32},
    "every_2_one_in_8": {"every": 2, "one_in": 8},
    # The direction of the denoising loss's gradient, which its backward pass holds. It is computed by itself here, at the price
    # of an ascent, and not worth sharing: it leaves 40 % more noise than FGSM on the shift, and a backward pass that had
    # to end before the second term begins would spare one evaluation of eight. No direction can be kept across steps, for
    # example, noise and time are drawn anew; at_diff keeps all three, and its own is free.
    "free_direction": {"maximize": "denoising", "random_start": False, "step_size": 1.0},
    "free_direction_one_in_16": {"maximize": "denoising", "random_start": False, "step_size": 1.0, "one_in": 16},
}


def get_config():
    base = equal_evaluations(plane3d.get_config())
    base.train.budget_evaluations, base.train.steps = 0, 4000  # equal steps: what is spared is seen in flops_per_step
    return list_of_runs(
        name="plane3d_fast",
        summary="The adaptive cutoff with its term computed in full, late, lazily or on part of the batch, for as many "
        "steps, on points of a plane of which 90 % carry noise of std 0.1.",
        base=base,
        runs={name: {"variant": name} for name in ("ddpm", "robust_adaptive", "robust_fast")}
        | {name: {**ADAPTIVE, "robust": recipe} for name, recipe in RECIPES.items()},
        seeds=(0, 1, 2),
        metrics=("off_plane_rms", "spread_ratio", "w2", "flops_per_step", "network_evaluations", "train_seconds"),
    )
