"""What keeps a run from losing work: stops while sampling, full disks, diverged losses, locked folders, more steps."""

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.experiment import LEARNING_RATES
from advdiff_jax.builders.registry import build
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.training import checkpoint, loop, parallel
from advdiff_jax.training.log import read_metrics
from configs import plane3d
from tests.launching import ROOT

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
        def draw_rounds(params, key, n, between=lambda: None):
            for _ in range(3):
                rounds.append(n)
                os.kill(os.getpid(), signal.SIGTERM)
                between()

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

    params, calls = parallel.replicate(jnp.float32(1.0)), []
    sampler = parallel.parallel_sampler(draw, per_device=4)
    few, many = (sampler(params, jax.random.key(0), n, lambda: calls.append(None)) for n in (3, 50))
    assert sizes == [3, 4]  # of each of the 8 devices
    assert len(calls) == 1 + 2
    assert (few.shape, many.shape) == ((3, 2), (50, 2))
    np.testing.assert_array_equal(few, many[:3])


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
    with pytest.raises(UserError, match=r"training diverged: the loss is .* at the last step, and was .* at the first; lower"):
        modes.load("train")(config, tmp_path / "run")
    first, last = (row["loss"] for row in (read_metrics(tmp_path / "run")[0], read_metrics(tmp_path / "run")[-1]))
    assert last > loop.DIVERGED * 2.0 > 0.0
    assert first > 2.0
    assert not (tmp_path / "run" / "results.json").exists()


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
        workdir.lengthen(small(variant, **overrides, **{"train.steps": 30}), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 20


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
