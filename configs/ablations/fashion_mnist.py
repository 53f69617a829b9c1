"""Fashion-MNIST at 32x32, 90 % of it under noise of std 0.2: does the paper's objective do on real images what it claims?

A run of `ddpm` takes about half an hour of one core, one of `robust_adv` an hour. The evaluation takes as long again:
VGG16 reads about 115 images a second of a core, 22,000 for the metrics and all 55,000 training images for `similarity`.
"""

from configs import fashion_mnist
from configs.ablations.common import list_of_runs


def get_config():
    base = fashion_mnist.get_config()
    base.data.held_out = 5000  # of 60,000: memorisation and denoising are judged on images that no run has seen
    base.evaluation.diagnostics = (
        *("gain", "similarity", "noise_levels", "denoising"),
        *("attack", "local_gain", "few_steps"),
    )
    base.evaluation.attack.examples = 16  # 120,000 network evaluations
    base.evaluation.few_steps.samplers = ("ddim", "dpm_solver_2m")  # 50,000 network evaluations
    base.evaluation.few_steps.steps = (5, 10, 25)
    base.evaluation.few_steps.num_samples = 600  # more than the 512 features of vgg16
    return list_of_runs(
        name="fashion_mnist_ablation",
        summary=(
            "Clothes at 32x32 pixels, nine in ten of them under noise, and no model knows which. Plain denoising (ddpm), the "
            "paper's robust_adv, and what a user would try first: the model of ddpm, with a last step that removes noise of "
            "the known std from its samples."
        ),
        base=base,
        runs={name: {"variant": name} for name in ("ddpm", "robust_adv")},
        evaluations={
            "ddpm, final step": {
                "of": "ddpm",
                "sampling": {"final_denoise": 0.2, "final_level": 0.2},
                "evaluation": {"diagnostics": ("gain",)},
            }
        },
        seeds=(0,),
        metrics=(
            *("fd_vgg16", "fd_vgg16_dirty", "kid_vgg16", "precision", "recall", "density", "coverage"),
            *("noise_energy", "noise_energy_dirty", "noise_energy_clean"),
            *("nn_distance_ratio", "nn_distance_ratio_held_out", "nn_similarity_vgg16", "nn_similarity_vgg16_held_out"),
            *("attack_ddim_linf_start_0.3", "attack_ddim_linf_every_0.3", "local_gain"),
            *("network_evaluations", "train_seconds"),
        ),
        figures=("side_by_side", "bars", "curves"),
    )
