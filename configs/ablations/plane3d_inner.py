"""The inner maximisation: its loss, ball, number and length of steps, and start."""

from configs import plane3d
from configs.ablations.common import list_of_runs
from configs.ablations.plane3d_baselines import equal_evaluations

STEPS = (1, 2, 5, 10)


def get_config():
    runs = {
        f"{maximize}_{ball}/K_{steps}": {"maximize": maximize, "ball": ball, "attack_steps": steps}
        for maximize, ball in (("shift", "linf"), ("shift", "l2"), ("residual", "linf"))
        for steps in STEPS
    }
    runs |= {f"step_size/{round(100 * length)}_percent": {"step_size": length} for length in (0.5, 1.0, 2.0)}
    # At delta = 0 the gradients of shift and residual are zero, that of the denoising loss is not.
    runs |= {
        "no_random_start/denoising": {"maximize": "denoising", "random_start": False},
        "no_ascent/random": {"perturbation": "random"},
    }
    base = equal_evaluations(plane3d.get_config())
    base.evaluation.diagnostics = ("overfitting",)
    return list_of_runs(
        name="plane3d_inner",
        summary="The inner maximisation of robust_fast on points of a plane of which 90 % carry noise of std 0.1, at equal "
        "network evaluations; and the penalty that stronger ascents find on the trained network.",
        base=base,
        runs={label: {"variant": "robust_fast", "robust": overrides} for label, overrides in runs.items()},
        seeds=(0, 1, 2),
        metrics=(
            "off_plane_rms",
            "spread_ratio",
            "w2",
            "overfitting_pgd10_over_fgsm",
            "overfitting_worst10_over_fgsm",
            "overfitting_random_over_fgsm",
            "overfitting_free_over_fgsm",
            "network_evaluations",
        ),
    )
