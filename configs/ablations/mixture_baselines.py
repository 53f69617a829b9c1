"""Every method on eight narrow Gaussians in the plane: noise there is as wide as what it blurs."""

from configs import mixture
from configs.ablations.plane3d_baselines import METHODS, table


def get_config():
    methods = {name: METHODS[name] for name in METHODS if not name.startswith("ambient_guess_")}
    summary = "Every method on eight Gaussians of std 0.05, with 2 % outliers, at equal network evaluations."
    return table("mixture_baselines", summary, mixture.get_config(), methods, ())
