"""Eight narrow Gaussians in twelve noise settings: methods by what they are given, at equal network evaluations."""

from configs import mixture
from configs.ablations.plane3d_ladder import of_points


def get_config():
    points = "Eight Gaussians of std 0.05 in the plane, with 2 % outliers"
    return of_points("mixture_ladder", points, mixture.get_config())
