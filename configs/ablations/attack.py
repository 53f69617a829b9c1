"""The whole protocol of attacks on the sampling trajectory, plain against robust, on points of a plane."""

from configs import plane3d
from configs.ablations.common import list_of_runs
from configs.default import full_attack

SHOWN = tuple(f"attack_ddim_linf_{threat}_{kappa}" for threat in ("start", "t0.5", "every") for kappa in (0.1, 1))


def get_config():
    base = plane3d.get_config()
    full_attack(base)
    base.evaluation.diagnostics = ("attack", "local_gain", "few_steps")
    return list_of_runs(
        name="attack",
        summary="Attacks on the sampling trajectory, on points of an oblique plane in R^3, 90 % noisy.",
        base=base,
        runs={variant: {"variant": variant} for variant in ("ddpm", "robust_adv", "robust_fast")},
        seeds=(0,),
        metrics=("off_plane_rms", "w2", "w2_floor", *SHOWN, "attack_checks_failed", "local_gain"),
    )
