"""A finished run made robust: `init_from` starts from its parameters, and from its estimate of the noise floor."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.steps import weight_ramp
from advdiff_jax.builders.validate import resolve
from advdiff_jax.builders.warm_start import warm_start
from advdiff_jax.errors import UserError
from advdiff_jax.modes import train
from advdiff_jax.training import noise_floor, parallel, state
from advdiff_jax.training.checkpoint import restore_latest
from configs import plane3d

pytestmark = pytest.mark.usefixtures("unpainted")


def tiny(variant, **overrides):
    config = plane3d.get_config(variant)
    config.train.update({"steps": 60, "batch_size": 128, "warmup_steps": 5, "log_every": 10, "ema_decay": 0.9})
    config.data.num_examples, config.network.width, config.evaluation.num_samples = 500, 16, 64
    config.sampling.steps, config.sampling.batch_size = 4, 8
    config.evaluation.metrics, config.evaluation.field_levels, config.evaluation.diagnostics = ("plane",), (), ()
    config.update_from_flattened_dict(overrides)
    return resolve(config)


def state_of(config, folder):
    experiment = build_experiment(config, (3,))
    return restore_latest(folder, experiment.init, experiment.optimizer).state


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    train.run(tiny("ddpm"), folder)
    return folder


def test_fine_tuning_starts_where_the_finished_run_ended(plain, tmp_path):
    start = {"init_from": str(plain), "robust.start_step": 0.0, "criterion": "square", "train.steps": 10}
    config = tiny("robust_fast", **start)
    train.run(config, tmp_path)
    (first,) = rows_of(tmp_path)
    assert first["denoising"] < 0.9 * rows_of(plain)[0]["denoising"]  # the same loss of the same draws, from scratch
    assert "residual" in first
    # With no plain steps of its own, the noise floor is the estimate of the finished run.
    before, after = state_of(tiny("ddpm"), plain), state_of(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, before.noise_floor, after.noise_floor)
    assert noise_floor.is_measured(before.noise_floor)


def test_a_run_that_was_lost_before_its_first_checkpoint_starts_from_there_again(plain, tmp_path):
    config = tiny("robust_adaptive", **{"init_from": str(plain), "robust.start_step": 0.0})
    (tmp_path / "checkpoints").mkdir()
    experiment = build_experiment(config, (3,))
    fresh = state.create(experiment.init(jax.random.key(5)), experiment.optimizer)
    started = warm_start(config, experiment, tmp_path)(fresh)
    wanted = state_of(tiny("ddpm"), plain)
    jax.tree.map(np.testing.assert_array_equal, started.params, wanted.ema_params)
    jax.tree.map(np.testing.assert_array_equal, started.ema_params, wanted.ema_params)
    assert int(started.step) == 0
    (tmp_path / "checkpoints" / "20").mkdir()  # a run that has saved one resumes from there
    assert warm_start(config, experiment, tmp_path)(fresh) is fresh


def first_step(**overrides):
    """The state after the first step of a run, and its metrics."""
    config = tiny("robust_adv", **{"train.decay": "constant", "train.warmup_steps": 0} | overrides)
    experiment = build_experiment(config, (3,))
    fresh = state.create(experiment.init(jax.random.key(5)), experiment.optimizer)
    run = parallel.replicate(warm_start(config, experiment, pathlib.Path("/nowhere"))(fresh))
    batch = {"examples": jax.random.normal(jax.random.key(6), (8, 16, 3))}
    before = jax.device_get(parallel.first_replica(run))  # the step takes the buffers
    after, metrics = parallel.parallel_train_step(experiment.steps[True])(run, jax.random.key(7), batch)
    return before, *jax.device_get((parallel.first_replica(after), parallel.first_replica(metrics)))


def test_the_average_goes_on_and_the_weight_of_the_penalty_rises(plain):
    before, after, metrics = first_step(init_from=str(plain), **{"robust.warmup_steps": 8.0})
    share = lambda a, b, c: np.testing.assert_allclose(b - a, 0.1 * (c - a), atol=1e-6)  # 1 - ema_decay
    jax.tree.map(share, before.ema_params, after.ema_params, after.params)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
    assert min(jax.tree.leaves(moved)) > 1e-3
    *_, whole = first_step(init_from=str(plain))
    assert metrics["penalty"] == pytest.approx(whole["penalty"] / 8, rel=1e-5)
    assert metrics["residual"] == pytest.approx(whole["residual"], rel=1e-5)
    before, after, _ = first_step()  # from scratch the average follows closely at first
    share = lambda a, b, c: np.testing.assert_allclose(b - a, 0.9 * (c - a), atol=1e-6)
    jax.tree.map(share, before.ema_params, after.ema_params, after.params)


def test_the_ramp_of_the_weight_starts_with_the_penalty():
    config = tiny("robust_adv", **{"robust.start_step": 10, "robust.warmup_steps": 0.5})  # of 60 steps
    found = [float(weight_ramp(config, np.int32(step))) for step in (0, 9, 10, 24, 39, 59)]
    np.testing.assert_allclose(found, [0.0, 0.0, 1 / 30, 0.5, 1.0, 1.0], rtol=1e-6)
    assert weight_ramp(tiny("robust_adv"), np.int32(0)) == 1.0


def test_an_unfinished_run_is_started_from_with_a_warning(plain, tmp_path, caplog):
    config = tiny("robust_adv", **{"init_from": str(tmp_path / "stopped"), "network.dtype": "bfloat16"})  # may differ
    shutil.copytree(plain, tmp_path / "stopped")
    (tmp_path / "stopped" / "results.json").unlink()
    warm_start(config, build_experiment(config, (3,)), tmp_path)
    assert "is not finished: this run starts from its newest checkpoint" in caplog.text


def test_a_late_start_measures_the_noise_floor_and_then_has_the_penalty(tmp_path):
    config = tiny("robust_adaptive", **{"robust.start_step": 0.5, "robust.lazy_interval": 2, "criterion": "square"})
    train.run(config, tmp_path)
    rows = rows_of(tmp_path)
    assert ["residual" in row for row in rows] == [False] * 3 + [True] * 3
    for row in rows:  # means over steps with the penalty and without
        assert row["loss"] == pytest.approx(row["denoising"] + row.get("penalty", 0.0), rel=1e-5)
    assert rows[-1]["penalty"] > 0.0
    results = json.loads((tmp_path / "results.json").read_text())
    stats, memory = state_of(config, tmp_path).noise_floor, noise_floor.MEMORY
    assert results["noise_level"] == pytest.approx(float(noise_floor.estimate_noise_floor(stats, config.robust.explained)))
    thirty_batches = memory * (1.0 - memory**30) / (1.0 - memory)  # the plain steps, and no other
    assert float(np.sum(stats.count)) == pytest.approx(thirty_batches, rel=1e-4)
    assert results["network_evaluations"] == 128 * (45 * 3 + 15 * 8)


def test_what_a_run_cannot_start_from_is_refused(plain, tmp_path):
    config = tiny("robust_adv", init_from=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"init_from=.*nowhere cannot be used to initialise this run: .*holds no checkpoint"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    def refused(variant, message, **overrides):
        config = tiny(variant, **overrides)
        experiment = build_experiment(config, (2,) if config.data.source == "mixture" else (3,))
        with pytest.raises(UserError, match=message) as caught:
            warm_start(config, experiment, tmp_path / "run")
        return str(caught.value)

    width = r"has another network or process: network\.width \(16 there, 32 here\)"
    refused("robust_adv", width, **{"init_from": str(plain), "network.width": 32})
    other = {"init_from": str(plain), "data.source": "mixture", "evaluation.metrics": ("wasserstein",)}
    message = refused("robust_adv", r"init_from=.* cannot be used to initialise this run: .*of another network", **other)
    assert "remove" not in message  # nobody is asked to throw a finished run away
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    refused("robust_adv", r"broken/config\.json is not JSON", init_from=str(tmp_path / "broken"))

    never_plain = tmp_path / "never_plain"
    train.run(tiny("robust_ran", **{"train.steps": 2, "train.warmup_steps": 1}), never_plain)
    for start in (0.0, 0.001):  # of 60 steps none
        no_floor = r"init_from=.* has no noise-floor estimate .*: set config\.robust\.start_step above 0"
        refused("robust_adaptive", no_floor, **{"init_from": str(never_plain), "robust.start_step": start})
    with pytest.raises(
        UserError, match=r"config\.robust\.weight='adaptive' follows .*: set config\.robust\.start_step above 0"
    ):
        tiny("robust_adaptive", **{"robust.start_step": 0.001})
