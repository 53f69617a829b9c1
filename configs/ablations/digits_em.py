"""digits: two laps of EM with measured noise levels, against a plain model and its final step, at equal network evaluations."""

from configs import digits
from configs.ablations.common import list_of_runs


def em(e_step):
    """Overrides of EM whose three models and two E-steps cost as many network evaluations as plain training."""
    return {"variant": "em_blind", "train": {"steps": 400}, "em": {"laps": 2, "e_step": e_step, "steps": 9}}


def get_config():
    base = digits.get_config()
    base.train.steps = 1500  # half of the default: 144,000 network evaluations
    base.evaluation.metrics = ("noise_energy", "fd")
    base.evaluation.diagnostics = ()
    runs = {"ddpm": {"variant": "ddpm"}, "em_blind, sde": em("sde"), "em_blind, ode": em("ode")}
    return list_of_runs(
        name="digits_em",
        summary=(
            "Digits, nine in ten of them under noise, nothing given. EM draws a clean training set twice; the final step "
            "cleans the samples of the plain model. All have the same network evaluations in training and E-steps."
        ),
        base=base,
        runs=runs,
        evaluations={"ddpm, final step": {"of": "ddpm", "sampling": {"final_denoise": "measured"}}},
        seeds=(0, 1, 2),
        metrics=(
            *("noise_energy", "noise_energy_clean", "noise_energy_dirty", "fd_digits_cnn"),
            *("network_evaluations", "train_seconds"),
        ),
    )
