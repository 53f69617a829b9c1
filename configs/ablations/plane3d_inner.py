"""The inner maximisation: what is maximised, in which ball, in how many steps of which length, from where."""

from configs import plane3d
from configs.ablation import list_of_runs
from configs.ablations.plane3d_neighbours import equal_evaluations

STEPS = (1, 2, 5, 10)


def get_config():
    runs = {
        f"{maximize}_{ball}/K_{steps}": {"maximize": maximize, "ball": ball, "attack_steps": steps}
        for maximize, ball in (("shift", "linf"), ("shift", "l2"), ("violation", "linf"))
        for steps in STEPS
    }
    runs |= {f"step_size/{round(100 * length)}_percent": {"step_size": length} for length in (0.5, 1.0, 2.0)}
    # The gradients of shift and violation are zero where nothing is moved, that of the denoising loss is not.
    runs |= {
        "no_random_start/denoising": {"maximize": "denoising", "random_start": False},
        "no_ascent/random": {"perturbation": "random"},
    }
    base = equal_evaluations(plane3d.get_config())
    base.evaluation.looks = ("inner",)
    return list_of_runs(
        name="plane3d_inner",
        summary="The inner maximisation of robust_fast on points of a plane of which 90 % carry noise of std 0.1, at equal "
        "network evaluations; and how much more of the second term stronger ascents find on the trained network.",
        base=base,
        runs={label: {"variant": "robust_fast", "robust": overrides} for label, overrides in runs.items()},
        seeds=(0, 1, 2),
        metrics=(
            "off_plane_rms",
            "spread_ratio",
            "w2",
            "inner_pgd10_over_fgsm",
            "inner_worst10_over_fgsm",
            "inner_random_over_fgsm",
            "inner_free_over_fgsm",
            "network_evaluations",
        ),
    )
