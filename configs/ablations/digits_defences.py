"""Digits: does a robustly trained denoiser purify attacked digits, or certify them, better than a plain one?

Train the list first, then judge it: --mode=certify and --mode=purify write a page each over all runs. A run takes one to two
minutes of one core, and so does certifying it.
"""

from configs import digits
from configs.ablations.common import list_of_runs


def get_config():
    base = digits.get_config()
    base.data.held_out = 300
    base.train.budget_evaluations = 3 * 32 * 1500  # those of 1,500 plain steps
    base.evaluation.metrics, base.evaluation.diagnostics = ("fd",), ()
    base.sampling.method, base.sampling.steps = "ddim", 25
    base.certify.noise_stds, base.certify.examples = (0.25, 0.5), 200
    base.purify.linf_radii, base.purify.l2_radii = (0.1,), (0.5,)
    base.purify.attack_steps, base.purify.draws, base.purify.steps, base.purify.examples = 10, 4, 4, 200
    runs = {
        **{variant: {"variant": variant} for variant in ("ddpm", "robust_adv", "robust_fast", "ambient_blind")},
        "clean data": {"variant": "ddpm", "data": {"fraction": 0.0}},
    }
    return list_of_runs(
        name="digits_defences",
        summary=(
            "Digits, nine in ten under noise of std 0.2, at equal network evaluations: what their denoisers are worth in front "
            "of a classifier."
        ),
        base=base,
        runs=runs,
        seeds=(0, 1, 2),
        metrics=("fd_digits_cnn", "network_evaluations", "train_seconds"),
    )
