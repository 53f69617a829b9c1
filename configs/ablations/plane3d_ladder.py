"""The oblique plane in twelve noise settings: methods by what they are given, at equal network evaluations."""

import ml_collections

from configs import plane3d
from configs.ablations.common import GIVEN, IMAGES_ONLY, ladder, list_of_runs
from configs.ablations.plane3d_baselines import equal_evaluations

SETTINGS = {
    f"p{round(100 * fraction)}_s{round(100 * std):02d}": {"fraction": fraction, "noise_std": std}
    for fraction in (0.3, 0.6, 0.9)
    for std in (0.05, 0.1, 0.2, 0.4)
}


def of_points(name: str, points: str, base: ml_collections.ConfigDict, metrics: tuple = ()) -> ml_collections.ConfigDict:
    """Builds the ladder of points in every setting; `points` says in words what they are."""
    base = equal_evaluations(base)
    rows = ladder(SETTINGS, base, left_out=(*IMAGES_ONLY, *GIVEN["clean data"]))
    rows["runs"] |= GIVEN["clean data"]  # the same in every setting
    return list_of_runs(
        name=name,
        summary=(
            f"{points}. pP_sS: P % of them carry noise of std S / 100. Rows are ordered by what a method is given: nothing, "
            "the noise of each point, clean points."
        ),
        base=base,
        **rows,
        seeds=(0, 1, 2),
        metrics=(*metrics, "w2", "w2_floor", "network_evaluations", "train_seconds"),
        figures=("grid",),
    )


def get_config():
    points = "Points of an oblique plane in R^3"
    return of_points("plane3d_ladder", points, plane3d.get_config(), ("off_plane_rms", "spread_ratio"))
