"""Clothes and photo crops at 16x16, a tenth of each with a square of handwriting: does robust training help to find such?

Train the list first, then judge it with --mode=anomaly, which writes one page over all runs. A run takes about three minutes of
one core, and so does judging it.
"""

from configs import fashion_mnist
from configs.ablations.common import list_of_runs
from configs.ablations.fashion_mnist_ladder import small

VARIANTS = ("ddpm", "robust_adv", "robust_fast", "huber")
SIDE = 0.25  # of the squares, over the image's: 4 of 16 pixels

SETTINGS = {  # keys of the data
    "clothes": {"split": "train[:21000]"},
    "photo crops": {"source": "photo_crops", "num_examples": 21_000},
}


def get_config():
    base = small(fashion_mnist.get_config())
    base.data.size = 16
    base.data.pad = False
    base.data.storage = "uint8"
    base.data.held_out = 1000
    base.data.fraction = 0.1
    base.data.corruptions = ("foreign_patch",)
    base.data.foreign_source = base.anomaly.source = "digits"
    base.data.patch_side = base.anomaly.patch_side = SIDE
    base.train.budget_evaluations = 3 * 32 * 1000  # those of 1,000 plain steps
    base.evaluation.metrics = ("noise_energy",)
    base.evaluation.num_samples = 500
    runs = {
        f"{setting}/{variant}": {"variant": variant, "data": data} for setting, data in SETTINGS.items() for variant in VARIANTS
    }
    return list_of_runs(
        name="anomaly",
        summary=(
            "Clothes and crops of photographs at 16x16 pixels in 8 bits, a tenth of each with a square of handwriting, at "
            "equal network evaluations. No model is given which."
        ),
        base=base,
        runs=runs,
        seeds=(0, 1, 2),
        metrics=("noise_energy", "network_evaluations", "train_seconds"),
        figures=("grid",),
    )
