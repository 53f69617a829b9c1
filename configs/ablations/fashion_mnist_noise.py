"""Fashion-MNIST at 28x28, every image under noise of std 0.2: EM, GSURE, ambient denoising and the final step.

A row takes about six minutes of one core. The ceiling, a model of clean data, is a row of `fashion_mnist_masks`.
"""

from configs.ablations.common import FINAL_STEPS, list_of_runs
from configs.ablations.fashion_mnist_masks import METRICS, STEPS, small


def get_config():
    base = small()
    base.evaluation.metrics = (*base.evaluation.metrics, "noise_energy")
    half = {"train": {"steps": STEPS // 2}}
    runs = {
        # nothing
        "ddpm": {"variant": "ddpm"},
        "em_blind": {"variant": "em_blind", **half, "em": {"laps": 1, "steps": 15}},  # two models; the E-step comes on top
        # the std of the noise
        "gsure": {"variant": "gsure", **half},
        "ambient_oracle": {"variant": "ambient_oracle"},
    }
    steps = {label: FINAL_STEPS[label] for label in ("ddpm, final step", "ddpm, own final step")}
    return list_of_runs(
        name="fashion_mnist_noise",
        summary=(
            "Clothes, all of them under noise of std 0.2, in 8 bits. Rows are ordered by what a method is given: nothing, the "
            "noise's std. A final step and em_blind measure it."
        ),
        base=base,
        runs=runs,
        evaluations={label: {"of": "ddpm", "sampling": sampling} for label, sampling in steps.items()},
        seeds=(0, 1, 2),
        metrics=(*METRICS, "noise_energy", "noise_energy_dirty", "noise_energy_clean"),
        figures=("bars", "side_by_side"),
    )
