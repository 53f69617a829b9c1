"""plane3d: two laps of EM with measured noise levels, against one plain model and its final step, at equal network evaluations.

A tenth of the default size: 1.54 million network evaluations a run, of which E-steps take a sixth.
"""

from configs import plane3d
from configs.ablations.common import list_of_runs

STEPS = 2000  # of plain training, batch 256: 1,536,000 network evaluations
EXAMPLES = 5000


def em(e_step):
    """Overrides of EM whose three models and two E-steps cost as many network evaluations as plain training."""
    return {"variant": "em_blind", "train": {"steps": 556}, "em": {"laps": 2, "e_step": e_step, "steps": 30}}


def get_config():
    base = plane3d.get_config()
    base.data.num_examples = EXAMPLES
    base.train.steps, base.train.batch_size = STEPS, 256
    base.sampling.steps = 100
    base.evaluation.metrics = ("plane", "wasserstein")
    base.evaluation.diagnostics = ()
    base.evaluation.field_levels = ()
    runs = {
        "ddpm": {"variant": "ddpm"},
        "em_blind, sde": em("sde"),
        "em_blind, ode": em("ode"),
    }
    return list_of_runs(
        name="plane3d_em",
        summary=(
            "Points on a plane, nine in ten of them under noise, nothing given. EM draws a clean training set twice; the final "
            "step cleans the samples of the plain model. All have the same network evaluations in training and E-steps."
        ),
        base=base,
        runs=runs,
        evaluations={"ddpm, final step": {"of": "ddpm", "sampling": {"final_denoise": "measured", "final_level": 0.03}}},
        seeds=(0, 1, 2),
        metrics=("w2", "w2_floor", "off_plane_rms", "spread_ratio", "network_evaluations", "train_seconds"),
    )
