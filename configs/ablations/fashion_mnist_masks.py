"""Fashion-MNIST at 28x28 with 40 % of the pixels missing, and weak noise: what masks are worth, beside filling the pixels in.

A row takes about fifteen minutes of one core with its evaluation, and `em` 45: its E-step.
"""

from configs import fashion_mnist
from configs.ablations.common import list_of_runs

STEPS = 1500  # of a method that costs as much as plain denoising; the others get as many network evaluations in training


METRICS = (
    *("fd_alexnet", "fd_alexnet_dirty", "kid_alexnet", "precision", "recall"),
    *("nn_distance_ratio", "nn_distance_ratio_held_out", "network_evaluations", "train_seconds"),
)


def small():
    """Sets 10,000 images without a clean one, 5,000 that are held out, and a network for two CPU cores."""
    base = fashion_mnist.get_config()
    base.data.size = 28
    base.data.pad = False
    base.data.split = "train[:15000]"
    base.data.fraction = 1.0
    base.network.base_channels = 16
    base.network.channel_mults = (1, 2)
    base.network.attention_resolutions = ()
    base.train.steps = STEPS
    base.evaluation.features = "alexnet"
    base.evaluation.metrics = ("fd", "kid", "precision_recall", "memorization")
    base.evaluation.diagnostics = ()
    return base


def get_config():
    base = small()
    base.data.noise_std = 0.05
    base.data.missing_share = 0.4
    base.data.corruptions = ("gaussian", "missing_pixels")
    half = {"train": {"steps": STEPS // 2}}
    runs = {
        # nothing; the pixels are filled in before training
        "ddpm, mid-grey": {"variant": "ddpm"},
        "ddpm, mean of the others": {"variant": "ddpm", "data": {"restored_by": "mean_fill"}},
        "ddpm, inpainted": {"variant": "ddpm", "data": {"restored_by": "inpaint"}},
        # the mask of each example
        "ambient_mask": {"variant": "ambient_mask"},
        # the mask, and the std of the noise
        "gsure": {"variant": "gsure", **half},
        # two models; the E-step comes on top, with twice the evaluations of the training
        "em": {"variant": "em", **half, "em": {"laps": 1, "e_step": "moments", "steps": 15}},
        # clean data, as many images
        "clean data": {"variant": "ddpm", "data": {"fraction": 0.0}},
    }
    return list_of_runs(
        name="fashion_mnist_masks",
        summary=(
            "Clothes with 40 % of the pixels missing and noise of std 0.05, in 8 bits. Rows are ordered by what a method "
            "is given: images with the gaps filled in, masks, masks and the noise's std, clean images."
        ),
        base=base,
        runs=runs,
        seeds=(0, 1, 2),
        metrics=METRICS,
        figures=("bars", "side_by_side"),
    )
