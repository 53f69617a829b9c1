"""Every method on the oblique plane, from clean data to 90 % under noise of std 0.2, at equal network evaluations."""

from configs import plane3d
from configs.ablations.common import list_of_runs

# p = 0 is the same data set whatever s.
SETTINGS = {"p0": {"fraction": 0.0}} | {
    f"p{int(100 * fraction)}_s{int(100 * std):02d}": {"fraction": fraction, "noise_std": std}
    for fraction in (0.3, 0.6, 0.9)
    for std in (0.05, 0.1, 0.2)
}

METHODS = {
    name: {"variant": name}
    for name in (
        "ddpm",
        "robust_ran",
        "robust_adv",
        "robust_adv_cutoff",
        "robust_fast",
        "jvp",
        "at_diff",
        "ddpm_ip",
        "pseudo_huber",
        "ambient_guess",
        "ambient_oracle",
    )
} | {
    f"ambient_guess_{name}": {"variant": "ambient_guess", "baselines": {"guess": factor}}
    for name, factor in (("half", 0.5), ("double", 2.0))
}


def equal_evaluations(base):
    """Sets the network evaluations of 4,000 plain steps of 256 examples, and leaves out what a table does not show."""
    base.data.read_ahead = 0
    base.train.batch_size = 256
    base.train.budget_evaluations = 4000 * 256 * 3
    base.train.log_every = 500
    base.train.checkpoint_every = 1_000_000  # the last step alone is saved
    base.evaluation.num_samples = 2000  # of each seed
    base.evaluation.metrics = ("plane", "wasserstein") if base.data.source == "plane3d" else ("wasserstein",)
    base.evaluation.field_levels, base.evaluation.diagnostics = (), ()
    return base


def table(name, summary, base, methods, metrics):
    """Builds the list of all methods (label -> overrides) in every setting."""
    return list_of_runs(
        name=name,
        summary=f"{summary} pP_sS: P % of the points carry noise of std S / 100. ambient_oracle reads the noise std of each "
        "point; ambient_guess assumes S / 100 (half, double of it) for all, also at p = 0. The others read no noise level, but "
        "the cut of robust_adv_cutoff stays at 0.05, half the noise of the S = 10 settings.",
        base=equal_evaluations(base),
        runs={
            f"{setting}/{method}": {**overrides, "data": data}
            for setting, data in SETTINGS.items()
            for method, overrides in methods.items()
        },
        seeds=(0, 1, 2),
        metrics=(*metrics, "w2", "w2_floor", "network_evaluations", "train_seconds"),
        figures=("grid",),
    )


def get_config():
    summary = "Every method on points of an oblique plane in R^3, at equal network evaluations."
    return table("plane3d_baselines", summary, plane3d.get_config(), METHODS, ("off_plane_rms", "spread_ratio"))
