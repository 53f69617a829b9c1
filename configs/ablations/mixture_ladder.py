"""Eight narrow Gaussians in twelve noise settings: methods by what they are given, at equal network evaluations."""

from configs import mixture
from configs.ablations.common import GIVEN, IMAGES_ONLY, ladder, list_of_runs
from configs.ablations.plane3d_baselines import equal_evaluations
from configs.ablations.plane3d_ladder import SETTINGS


def get_config():
    base = equal_evaluations(mixture.get_config())
    rows = ladder(SETTINGS, base, left_out=(*IMAGES_ONLY, *GIVEN["clean data"]))
    rows["runs"] |= GIVEN["clean data"]  # the same in every setting
    return list_of_runs(
        name="mixture_ladder",
        summary=(
            "Eight Gaussians of std 0.05 in the plane, with 2 % outliers. pP_sS: P % of them carry noise "
            "of std S / 100. Rows are ordered by what a method is given: nothing, the noise of each point, clean points."
        ),
        base=base,
        **rows,
        seeds=(0, 1, 2),
        metrics=("w2", "w2_floor", "network_evaluations", "train_seconds"),
        figures=("grid",),
    )
