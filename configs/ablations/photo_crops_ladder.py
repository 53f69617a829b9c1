"""Crops of photographs in colour, 16x16: the ladder of `fashion_mnist_ladder`, with none of its settings touched."""

from configs import fashion_mnist
from configs.ablations.common import ladder, list_of_runs
from configs.ablations.fashion_mnist_ladder import METRICS, small

# Setting -> keys of the data; 5,000 are held out. Crops of one photograph overlap, also with those held out.
SETTINGS = {f"{count:,} images": {"num_examples": count + 5000} for count in (20_000, 2_000)}


def get_config():
    base = small(fashion_mnist.get_config())
    base.name = "photo_crops"
    base.data.source = "photo_crops"
    base.data.size = 16
    base.data.channels = 3
    base.data.storage = "uint8"
    return list_of_runs(
        name="photo_crops_ladder",
        summary=(
            "Crops of photographs, 16x16 pixels in colour, nine in ten under noise of std 0.2, stored in 8 bits. Rows are "
            "ordered by what a method is given: nothing, the noise of each image, clean images."
        ),
        base=base,
        **ladder(SETTINGS, base),
        seeds=(0, 1, 2),
        metrics=METRICS,
        figures=("bars", "side_by_side"),
    )
