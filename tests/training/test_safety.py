"""What keeps a run from losing work: stops while sampling, full disks, diverged losses, locked folders, more steps."""

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders import metrics, validate
from advdiff_jax.builders.experiment import LEARNING_RATES, build_experiment
from advdiff_jax.builders.registry import build
from advdiff_jax.builders.validate import read_keys, resolve
from advdiff_jax.data import batches
from advdiff_jax.errors import UserError
from advdiff_jax.modes import sample, train
from advdiff_jax.training import checkpoint, loop, parallel
from advdiff_jax.training.log import read_metrics
from configs import plane3d
from tests.launching import ROOT

pytestmark = pytest.mark.usefixtures("unpainted")

SMALL = {
    "data.num_examples": 256,
    "network.width": 8,
    "network.depth": 1,
    "train.batch_size": 16,
    "train.steps": 20,
    "train.warmup_steps": 2,
    "train.log_every": 10,
    "train.checkpoint_every": 1000,
    "train.decay": "constant",
    "sampling.steps": 2,
    "evaluation.num_samples": 16,
    "evaluation.metrics": ("plane",),
    "evaluation.diagnostics": (),
    "evaluation.field_levels": (),
}


def small(variant="ddpm", **overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict(SMALL | overrides)
    return resolve(config)


def test_a_stop_while_samples_are_drawn_loses_no_step(tmp_path, monkeypatch):
    """SIGTERM arrives in the first round of sampling at step 8: the state of step 8 is saved, and no further round is drawn."""
    rounds = []

    def sampler(draw, per_device):
        def draw_rounds(params, key, n):
            for _ in range(3):
                rounds.append(n)
                os.kill(os.getpid(), signal.SIGTERM)
                yield np.zeros((1, 3), np.float32)

        return draw_rounds

    monkeypatch.setattr(parallel, "parallel_sampler", sampler)
    config = small(**{"train.sample_every": 8, "train.sample_count": 5})
    with pytest.raises(KeyboardInterrupt):
        modes.load("train")(config, tmp_path / "run")
    assert rounds == [5]  # a handful, not evaluation.num_samples
    assert [child.name for child in (tmp_path / "run" / "checkpoints").iterdir()] == ["8"]


def test_a_handful_of_samples_costs_a_handful():
    sizes = []

    def draw(params, keys):
        sizes.append(len(keys))  # when it is traced
        return jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys) + params

    params = parallel.replicate(jnp.float32(1.0))
    sampler = parallel.parallel_sampler(draw, per_device=4)
    few, many = ([*sampler(params, jax.random.key(0), n)] for n in (3, 50))
    assert sizes == [3, 4]  # of each of the 8 devices
    assert [len(drawn) for drawn in few] == [3]
    assert [len(drawn) for drawn in many] == [32, 18]
    np.testing.assert_array_equal(few[0], many[0][:3])


def test_a_full_disk_is_reported_before_the_save(tmp_path, monkeypatch):
    config = small(**{"train.checkpoint_every": 10})
    usage = checkpoint.shutil.disk_usage(tmp_path)
    free = iter([usage.free, 1000])  # enough for the first checkpoint
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=next(free)))
    with pytest.raises(UserError, match=r"0 MB free, and the checkpoint of step 20 needs 0 MB: .*; it resumes from step 10"):
        modes.load("train")(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "10").is_dir()


def test_a_disk_that_fills_during_a_save_is_reported_at_once(tmp_path):
    """A write fails in the background as on a full disk: the run ends long before its next save, and the last one is good."""
    shape = {"network.width": 128, "network.depth": 2, "train.checkpoint_every": 200}
    folder, run = tmp_path / "run", modes.load("train")
    run(small(**shape), folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"checkpoint was not saved in .*run/checkpoints \(File too large\): make room .* from step 20$"
        ):
            run(small(**shape, **{"train.steps": 600}), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 200 <= read_metrics(folder)[-1]["step"] < 400


def test_a_bug_in_a_save_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.ocp.args, "StandardSave", lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        modes.load("train")(small(), tmp_path / "run")


def test_a_loss_far_above_that_of_predicting_zero_is_no_finished_run(tmp_path):
    config = small(**{"train.learning_rate": 30.0, "train.warmup_steps": 0})
    with pytest.raises(
        UserError, match=r"training diverged: the loss is .* at the last step, and was .* at the first, which .*; lower"
    ):
        modes.load("train")(config, tmp_path / "run")
    first, last = (row["loss"] for row in (read_metrics(tmp_path / "run")[0], read_metrics(tmp_path / "run")[-1]))
    assert last > loop.DIVERGED * 2.0 > 0.0
    assert first > 2.0
    assert not (tmp_path / "run" / "results.json").exists()


def bad_batches(monkeypatch, bad):
    """Puts infinities into the batches of the steps in `bad`, from 0."""
    original = batches.BatchSource.__getitem__

    def with_infinity(source, step):
        batch = original(source, step)
        return {"examples": np.full_like(batch["examples"], np.inf)} if step in bad else batch

    monkeypatch.setattr(batches.BatchSource, "__getitem__", with_infinity)


def test_an_update_that_is_not_finite_is_skipped_and_counted(tmp_path, monkeypatch, caplog):
    """The bad batch changes nothing but the count of steps: neither parameters, nor averages, nor the noise floor."""
    bad_batches(monkeypatch, {3, 15})
    modes.load("train")(small(), tmp_path / "run")
    assert [row["skipped"] for row in read_metrics(tmp_path / "run")] == [1, 1]
    assert "step 10: 1 of the last 10 updates were not finite, and were skipped" in caplog.text
    config = small()
    experiment = build_experiment(config, (3,))
    state = checkpoint.restore_latest(tmp_path / "run", experiment.init, experiment.optimizer).state
    assert state.step == 20
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text() + (tmp_path / "run" / "results.json").read_text()


def test_a_run_that_diverges_stops_and_goes_on_with_a_lower_learning_rate(tmp_path, monkeypatch):
    overrides = {"train.checkpoint_every": 5, "train.max_skipped": 4}
    with monkeypatch.context() as patched:
        bad_batches(patched, range(7, 20))
        wanted = r"4 updates in a row were not finite, from step 8 on, whose batch begins with the examples \d+, .*"
        with pytest.raises(
            UserError, match=wanted + r"last good checkpoint is of step \d+: lower config\.train\.learning_rate"
        ):
            modes.load("train")(small(**overrides), tmp_path / "run")
    lower = overrides | {"train.learning_rate": 1e-3}
    with pytest.raises(UserError, match=r"train\.learning_rate \(0\.002 there, 0\.001 here\)"):
        modes.load("train")(small(**lower), tmp_path / "run")
    modes.load("train")(small(**lower, **{"train.accept_changes": True}), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["learning_rate"] == 1e-3
    assert json.loads((tmp_path / "run" / "config-1.json").read_text())["train"]["learning_rate"] == 2e-3
    with pytest.raises(UserError, match=r"train\.learning_rate"):  # what is finished is not changed
        modes.load("train")(small(**overrides, **{"train.accept_changes": True}), tmp_path / "run")


def test_a_learning_rate_beyond_all_reason_does_not_finish(tmp_path):
    for learning_rate in (1e10, 1e30):
        overrides = {"train.steps": 2, "train.learning_rate": learning_rate, "train.warmup_steps": 0}
        with pytest.raises(UserError, match=r"training diverged: \d of the last 2 updates were not finite; lower"):
            modes.load("train")(small(**overrides), tmp_path / f"{learning_rate}")
        assert not (tmp_path / f"{learning_rate}" / "results.json").exists()


def test_samples_are_streamed_to_their_file_as_their_data_are_stored(tmp_path):
    drawn = [np.full((2, 4, 4, 1), value, np.float32) for value in (-2.0, 0.0, np.nan, 1.0)]
    drawn[0][1] = np.inf
    calls = []
    kept = sample._write(tmp_path / "a.npy", iter(drawn), (8, 4, 4, 1), np.dtype(np.uint8), lambda: calls.append(None))
    stored = np.load(tmp_path / "a.npy")
    assert (kept, stored.dtype, len(calls)) == (5, np.uint8, 4)
    assert stored[:, 0, 0, 0].tolist() == [0, 128, 128, 255, 255]
    assert [child.name for child in tmp_path.iterdir()] == ["a.npy"]


def test_a_metric_that_fails_leaves_the_others(tmp_path, monkeypatch, caplog):
    def broken(config, inputs):
        raise ValueError("no such luck")

    failing = {"broken": metrics.MetricSpec(broken, {}), "infinite": metrics.MetricSpec(lambda *_: {"infinite": np.inf}, {})}
    monkeypatch.setattr(metrics, "METRICS", failing | metrics.METRICS)
    monkeypatch.setitem(validate.CHOICES, "evaluation.metrics", metrics.METRICS)
    config = small(**{"evaluation.metrics": ("broken", "infinite", "plane")})
    modes.load("train")(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "off_plane_rms" in results
    assert "infinite" not in results
    page = (tmp_path / "run" / "report.html").read_text()
    assert "broken failed: no such luck." in page
    assert "infinite failed: it is inf." in page
    assert "broken failed: no such luck" in caplog.text
    assert "ValueError" in caplog.text  # a bug keeps its traceback


def test_pictures_drawn_while_training_are_not_training_time(tmp_path, monkeypatch):
    slow = lambda *args, **kwargs: time.sleep(2.0)
    monkeypatch.setattr(train.sample, "draw", slow)
    monkeypatch.setattr(train.evaluate, "evaluate_run", lambda *args: None)
    modes.load("train")(small(**{"train.sample_every": 5}), tmp_path / "run")
    config = small()
    experiment = build_experiment(config, (3,))
    assert checkpoint.restore_latest(tmp_path / "run", experiment.init, experiment.optimizer).meta["train_seconds"] < 2.0


def test_workers_end_when_the_first_batch_fails(tmp_path, monkeypatch):
    closed = []

    def unreadable(*arguments):
        try:
            yield from range(0)
            raise OSError("no such file")
        finally:
            closed.append("batches")

    monkeypatch.setattr(loop, "batches", unreadable)
    monkeypatch.setattr(checkpoint.Checkpointer, "close", lambda self: closed.append("checkpoints"))
    with pytest.raises(OSError, match="no such file"):
        modes.load("train")(small(), tmp_path / "run")
    assert closed == ["batches", "checkpoints"]


def test_no_bound_on_the_gradient_is_none(tmp_path):
    """clip_norm=0 trains as without clipping, not with gradients of length 0."""
    losses = {}
    for clip_norm in (0.0, 1e6):
        modes.load("train")(small(**{"train.clip_norm": clip_norm}), tmp_path / f"{clip_norm:g}")
        losses[clip_norm] = [row["loss"] for row in read_metrics(tmp_path / f"{clip_norm:g}")]
    assert losses[0.0] == losses[1e6]
    assert losses[0.0][-1] < losses[0.0][0]


def test_no_warm_up_is_none():
    config = small(**{"train.warmup_steps": 0, "train.learning_rate": 0.25})
    for decay in ("constant", "cosine"):
        config = config.copy_and_resolve_references()
        config.train.decay = decay
        assert float(build(LEARNING_RATES, config, "train.decay")(0)) == 0.25


def test_two_processes_in_one_folder_are_refused(tmp_path):
    program = "import pathlib, sys, time; from advdiff_jax import workdir\nwith workdir.lock(pathlib.Path(sys.argv[1])):\n"
    program += "    print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    held = rf"is in use by host .*, process {holder.pid}, since 20.*: wait for it, stop it, or name another --workdir"
    with pytest.raises(UserError, match=held), workdir.lock(tmp_path):
        pass
    holder.kill()  # a process that dies leaves no lock behind
    holder.wait()
    with workdir.lock(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


def test_a_finished_run_goes_on_to_more_steps(tmp_path):
    """20 steps and then 30 end where 30 steps end, bit for bit."""
    run = modes.load("train")
    run(small(), tmp_path / "run")
    run(small(**{"train.steps": 30}), tmp_path / "run")
    run(small(**{"train.steps": 30}), tmp_path / "at_once")
    longer, at_once = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "at_once"))
    assert longer["off_plane_rms"] == at_once["off_plane_rms"]
    assert [row["loss"] for row in read_metrics(tmp_path / "run")] == [
        row["loss"] for row in read_metrics(tmp_path / "at_once")
    ]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["steps"] == 30
    assert json.loads((tmp_path / "run" / "results-20.json").read_text())["network_evaluations"] == 20 * 16 * 3
    with pytest.raises(UserError, match=r"train\.steps \(30 there, 20 here\)"):
        run(small(), tmp_path / "run")


@pytest.mark.parametrize(
    ("variant", "overrides", "reason"),
    [
        ("ddpm", {"train.decay": "cosine"}, r"train\.decay=cosine follows train\.steps"),
        ("robust_adv", {"robust.start_step": 0.5}, r"robust\.start_step=0\.5 is a share of train\.steps"),
    ],
)
def test_more_steps_that_would_change_the_first_are_refused(tmp_path, variant, overrides, reason):
    workdir.claim(small(variant, **overrides), tmp_path, evaluate_only=False)
    with pytest.raises(UserError, match=rf"config\.train\.steps=30: .* has 20, .*{reason}.*config\.init_from="):
        workdir.amend(small(variant, **overrides, **{"train.steps": 30}), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 20


@pytest.mark.parametrize(("variant", "is_refused"), [("ddpm", False), ("discard_blind", True)])
def test_more_steps_would_move_the_second_measurement_of_a_run_that_has_one(tmp_path, variant, is_refused):
    config = small(variant, **{"train.steps": 30})
    again = {"noise.again"} & read_keys(config, modes.MODES, "train")
    assert bool(again) == is_refused
    workdir.claim(small(variant), tmp_path, evaluate_only=False)
    refused = pytest.raises(UserError, match=r"noise\.again=0\.5 is a share of train\.steps")
    with refused if is_refused else contextlib.nullcontext():
        workdir.amend(config, tmp_path, again)


def test_a_run_goes_on_with_its_own_data(tmp_path, caplog):
    """A point file that is replaced between two commands is refused by what differs, and accepted by an override."""
    points, file = np.random.default_rng(0).standard_normal((2, 64, 3)).astype(np.float32), tmp_path / "points.npy"
    overrides = {"data.source": "points", "data.path": str(file), "evaluation.metrics": (), "data.fraction": 0.0}
    run = functools.partial(modes.load("train"), folder=tmp_path / "run")
    np.save(file, points[0])
    run(small(**overrides))
    (tmp_path / "run" / "results.json").unlink()  # as if it had been stopped in its evaluation
    np.save(file, points[1])
    with pytest.raises(
        UserError, match=r"have changed since it began \(.*\): restore them, .*--config\.data\.accept_changes=True"
    ):
        run(small(**overrides))
    run(small(**overrides, **{"data.accept_changes": True}))
    assert "goes on with other data" in caplog.text
    (tmp_path / "run" / "results.json").unlink()
    run(small(**overrides))  # these are its data now


def test_a_long_list_of_overrides_has_a_folder_of_its_own(tmp_path):
    workdir.claim(small(), tmp_path, evaluate_only=False)
    folders = set()
    for size in (100, 200):
        metrics = ("plane", "wasserstein") * size
        out = workdir.claim(small(**{"evaluation.metrics": metrics}), tmp_path, evaluate_only=True)
        assert out.name.startswith("evaluation.metrics=['plane', 'wasserstein'")
        assert len(out.name) <= workdir.LONGEST_NAME
        folders.add(out)
    assert len(folders) == 2
