"""Noise removed against signal kept: the paper's schedule over lambda, against cutoffs, fixed and adaptive, over kappa."""

from configs import plane3d
from configs.ablations.common import list_of_runs
from configs.ablations.plane3d_baselines import equal_evaluations

LAMBDAS = (0.05, 0.1, 0.2, 0.3, 0.5)
KAPPAS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)


def get_config():
    # A label has no dots: lambda in hundredths.
    paper = {f"robust_adv/lambda_{round(100 * lam):02d}": {"variant": "robust_adv", "robust": {"lam": lam}} for lam in LAMBDAS}
    cutoffs = {
        f"{variant}/kappa_{kappa:g}": {"variant": variant, "robust": {"kappa0": kappa}}
        for variant in ("robust_adv_cutoff", "robust_fast")
        for kappa in KAPPAS
    }
    # Separates the effect of the robust denoising loss from that of the penalty.
    square = {
        f"robust_fast_square/kappa_{kappa:g}": {"variant": "robust_fast", "criterion": "square", "robust": {"kappa0": kappa}}
        for kappa in KAPPAS[1:4]
    }
    return list_of_runs(
        name="plane3d_frontier",
        summary="Noise removed against spread kept, for each strength of each schedule, on points of a plane of which 90 % "
        "carry noise of std 0.1, at equal network evaluations. Up and to the left is better.",
        base=equal_evaluations(plane3d.get_config()),
        runs=paper | cutoffs | square,
        seeds=(0, 1, 2),
        metrics=("off_plane_rms", "spread_ratio", "w2", "w2_floor", "network_evaluations"),
        figures=("frontier", "bars"),
        frontier=("off_plane_rms", "spread_ratio"),
    )
