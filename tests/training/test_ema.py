"""Several averages of the parameters: each is that of a run of its own, and samples come from the chosen one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advdiff_jax import modes
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.training import parallel, state
from advdiff_jax.training.checkpoint import Checkpointer, restore_latest
from advdiff_jax.training.step import make_train_step
from configs import plane3d

pytestmark = pytest.mark.usefixtures("unpainted")

OPTIMIZER = optax.adam(0.1)


def trained(ema_decay, more_ema_decays=(), steps=20):
    """Trains eps_th(x) = a x; returns the state."""
    objective, schedule = denoising(DDPMGrid(), PARAMETERIZATIONS["eps"]), DDPMGrid()
    apply = lambda params, x, t, keys: params["a"] * x
    step = make_train_step(apply, lambda state: objective, schedule, OPTIMIZER, ema_decay, more_ema_decays=more_ema_decays)
    run = state.create({"a": jnp.ones(())}, OPTIMIZER, len(more_ema_decays))
    body = lambda run, key: step(run, jax.random.split(key, 8), {"examples": jnp.ones((8, 2))})
    return jax.jit(lambda run: jax.lax.scan(body, run, jax.random.split(jax.random.key(0), steps))[0])(run)


def test_each_average_is_that_of_a_run_of_its_own():
    several = trained(0.5, (0.1, 0.9))
    first, *more = (trained(decay).ema_params["a"] for decay in (0.5, 0.1, 0.9))
    assert several.ema_params["a"] == first
    assert [ema["a"] for ema in several.more_ema] == more
    assert len({float(value) for value in (first, *more, several.params["a"])}) == 4


def test_averages_are_saved_and_a_state_without_them_has_the_layout_of_earlier_versions(tmp_path):
    for name, decays in (("one", ()), ("three", (0.1, 0.9))):
        run = trained(0.5, decays)
        checkpointer = Checkpointer(tmp_path / name / "checkpoints")
        checkpointer.save(parallel.replicate(run), {})
        checkpointer.close()
        restored = restore_latest(tmp_path / name, lambda key: {"a": jnp.ones(())}, OPTIMIZER)
        assert restored.state.more_ema == tuple({"a": ema["a"]} for ema in run.more_ema)
        assert restored.state.ema_params["a"] == run.ema_params["a"]
        assert any(".more_ema" in leaf for leaf in restored.meta["checksums"]) == bool(decays)
    checkpointer = Checkpointer(tmp_path / "one" / "checkpoints", read_only=True)
    with pytest.raises(UserError, match=r"another network or optimiser: \.more_ema"):
        checkpointer.restore(trained(0.5, (0.1,)))
    checkpointer.close()


def test_samples_come_from_the_chosen_average(tmp_path):
    config = plane3d.get_config("ddpm")
    config.network.update({"width": 8, "depth": 1})
    config.train.update(
        {"batch_size": 16, "steps": 40, "warmup_steps": 1, "log_every": 20, "sample_every": 20, "sample_count": 5}
    )
    config.train.more_ema_decays = (0.2,)
    config.sampling.update({"steps": 2, "ema_decay": 0.2})
    config.evaluation.update({"num_samples": 16, "metrics": (), "diagnostics": (), "field_levels": ()})
    config.data.num_examples = 64
    modes.load("train")(resolve(config), tmp_path)
    config.sampling.ema_decay = 0.0
    modes.load("sample")(resolve(config), tmp_path)
    experiment = build_experiment(resolve(config), (3,))
    run = restore_latest(tmp_path, experiment.init, experiment.optimizer).state
    draw = lambda params: next(experiment.sampler(parallel.replicate(params), jax.random.key(config.sampling.seed), 16))
    other = tmp_path / "evaluations" / "sampling.ema_decay=0.0" / "samples" / "step_40.npy"
    for params, path in ((run.more_ema[0], tmp_path / "samples" / "step_40.npy"), (run.ema_params, other)):
        np.testing.assert_array_equal(np.load(path), draw(params))
    assert np.load(tmp_path / "samples" / "step_20.npy").shape == (5, 3)
    assert not np.array_equal(np.load(other), np.load(tmp_path / "samples" / "step_40.npy"))
