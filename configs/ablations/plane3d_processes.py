"""Plain and robust training in every process, each in its own prediction: radius and weight have the same meaning in all."""

from configs import plane3d
from configs.ablations.common import list_of_runs

CONTINUOUS = {"grid_steps": 0}
PROCESSES = {
    "vp_linear": {"diffusion": {"schedule": "vp_linear"}},
    "vp_cosine": {"diffusion": {"schedule": "vp_cosine", "prediction": "v"}},
    "sub_vp": {"diffusion": {"schedule": "sub_vp", "prediction": "v", **CONTINUOUS}},
    "ve": {"diffusion": {"schedule": "ve", **CONTINUOUS}, "network": {"time_input": "log_noise"}},
    "edm": {"diffusion": {"schedule": "edm", "prediction": "edm", **CONTINUOUS}, "network": {"time_input": "log_noise"}},
    "flow": {"diffusion": {"schedule": "flow", "prediction": "flow", **CONTINUOUS}},
}


def get_config():
    return list_of_runs(
        name="plane3d_processes",
        summary="Plain and robust training on points of an oblique plane, 90 % of them noisy, in every process.",
        base=plane3d.get_config(),
        runs={
            f"{process}_{variant}": {
                "variant": variant,
                "sampling": {"method": "dpm_solver_2m", "grid": "log_snr", "steps": 50},
                **overrides,
            }
            for process, overrides in PROCESSES.items()
            for variant in ("ddpm", "robust_adv_cutoff")
        },
        seeds=(0,),
        metrics=("off_plane_rms", "spread_ratio", "w2", "w2_floor", "score_error", "train_seconds"),
    )
