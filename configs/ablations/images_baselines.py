"""Real handwriting, and its projection to a known subspace, clean and under noise, at equal network evaluations."""

from configs import digits, subspace_digits
from configs.ablations.common import list_of_runs

VARIANTS = ("ddpm", "robust_ran", "robust_adv", "robust_adv_cutoff", "robust_fast", "at_diff", "ddpm_ip", "pseudo_huber")


def get_config():
    base, subspace = digits.get_config(), subspace_digits.get_config()
    base.train.budget_evaluations = 3 * 32 * 3000  # those of ddpm's 3,000 steps
    base.train.log_every, base.train.checkpoint_every = 500, 1_000_000
    base.evaluation.diagnostics, base.evaluation.field_levels = (), ()
    sets = {
        "digits": {},
        "subspace": {
            "data": {name: subspace.data[name] for name in ("source", "base", "subspace_dim")},
            "evaluation": {"metrics": ("subspace", "noise_energy", "fd")},
        },
    }
    settings = {f"s{int(100 * std)}": ({"noise_std": std}, VARIANTS) for std in (0.2, 0.4)}
    settings["clean"] = ({"fraction": 0.0}, ("ddpm", "robust_fast"))  # the cost of robustness on clean data
    return list_of_runs(
        name="images_baselines",
        summary="Digits, and digits projected to ten principal components, clean, or 90 % of them under noise of std 0.2 or "
        "0.4 (in [-1, 1]), at equal network evaluations; the cut of robust_adv_cutoff is at half of the true std.",
        base=base,
        runs={
            f"{name}_{setting}/{variant}": {
                "variant": variant,
                **overrides,
                "data": {**overrides.get("data", {}), **data},
            }
            for name, overrides in sets.items()
            for setting, (data, variants) in settings.items()
            for variant in variants
        },
        seeds=(0, 1, 2),
        metrics=("noise_energy", "subspace_distance", "fd_digits_cnn", "network_evaluations", "train_seconds"),
        figures=("grid",),
    )
