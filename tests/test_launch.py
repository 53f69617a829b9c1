"""The command as a user meets it: what it writes, and the one line after a mistake."""

import contextlib
import errno
import json
import os

import numpy as np
import pytest

from advdiff_jax.training.log import MetricsLog
from tests.launching import ROOT, TINY, call, launch

PLANE = "--config=configs/plane3d.py:robust_ran"
DIAGNOSED = (*TINY[:-1], "--config.evaluation.diagnostics=('gain',)")
MIXTURE = "--config=configs/mixture.py:ddpm"
DEMO = "--config=configs/ablations/demo.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run of the plane, in a process of its own."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    process = launch(PLANE, *DIAGNOSED, f"--workdir={workdir}", "--config.train.sample_every=30")
    assert process.returncode == 0, process.stderr
    return workdir, process


def again(workdir, *args):
    """Calls the command of the finished run once more, with more flags."""
    return call(PLANE, *DIAGNOSED, f"--workdir={workdir}", "--config.train.sample_every=30", *args)


def test_a_run_writes_what_the_design_says(finished):
    workdir, process = finished
    assert process.stdout.splitlines()[-1] == f"open {workdir}/report.html"
    assert "Traceback" not in process.stderr
    # No terminal: plain lines, one a window, with loss, rate and time left.
    lines = [line for line in process.stdout.splitlines() if line.startswith("plane3d:robust_ran: step")]
    assert len(lines) == 6
    assert all("loss" in line and "steps/s" in line and "s left" in line for line in lines)

    config = json.loads((workdir / "config.json").read_text())
    assert (config["variant"], config["train"]["steps"], config["schema"]) == ("robust_ran", 60, 3)
    assert config["robust"]["bias_max"] == config["robust"]["bias_min"] == 8 / 255  # references are resolved
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert {"loss", "denoising", "residual", "penalty", "grad_norm", "steps_per_second"} <= rows[0].keys()
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert len(list(workdir.glob("events.out.tfevents.*"))) == 1
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["40", "60"]
    images = sorted(path.name for path in (workdir / "samples").glob("*.png"))
    assert images == ["step_30.png", "step_60.png"]  # while training, and at the end
    assert all((workdir / "samples" / name).read_bytes().startswith(b"\x89PNG") for name in images)
    plots = {"curves.png", "data_clean.png", "data_dirty.png", "score_field.png", "trajectories.png", "gain.png"}
    assert {path.name for path in (workdir / "plots").glob("*.png")} == plots
    assert {"fields.npz", "fields_exact.npz", "gain.json"} <= {path.name for path in (workdir / "plots").iterdir()}
    results = json.loads((workdir / "results.json").read_text())
    names = {
        "off_plane_rms",
        "spread_ratio",
        "w2",
        "w2_floor",
        "score_error",
        "gain_largest",
        "gain_smallest",
        "gain_error",
        "network_evaluations",
        "flops_per_step",
        "steps_per_second",
        "train_seconds",
    }
    assert names <= results.keys()
    assert results["network_evaluations"] == 60 * 32 * 6
    assert all(isinstance(value, float) for value in results.values())
    report = (workdir / "report.html").read_text()
    assert report.count("data:image/png;base64") == 7
    assert "off_plane_rms" in report


def test_a_finished_run_is_not_done_again(finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    process = again(workdir)
    assert process.returncode == 0
    assert "already finished" in process.stderr
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_evaluate_with_another_sampler_keeps_the_runs_own_results(finished):
    workdir, _ = finished
    before = (workdir / "results.json").read_text()
    changed = ("--config.sampling.method=ddim", "--config.evaluation.field_levels=()")
    process = again(workdir, "--mode=evaluate", *changed)
    assert process.returncode == 0, process.stderr
    other = workdir / "evaluations" / "evaluation.field_levels=[],sampling.method=ddim"
    assert process.stdout.strip() == f"open {other}/report.html"
    results, own = (json.loads(text) for text in ((other / "results.json").read_text(), before))
    assert results["w2"] != own["w2"]
    assert results["w2_floor"] == own["w2_floor"]  # the same clean draws
    assert (workdir / "results.json").read_text() == before


def test_sample_mode_draws_the_same_samples_on_eight_devices(finished):
    workdir, _ = finished
    drawn = workdir / "samples" / "step_60.npy"
    before = np.load(drawn)
    drawn.unlink()
    process = again(workdir, "--mode=sample")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"open {workdir}/samples/step_60.png"
    assert before.shape == (100, 3)
    np.testing.assert_allclose(np.load(drawn), before, atol=1e-5)


def test_the_workdir_of_another_config_is_refused_by_its_keys(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_text()
    process = again(workdir, "--config.robust.lam=0.5", "--config.seed=7")
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert "robust.lam (0.3 there, 0.5 here)" in line
    assert "seed (0 there, 7 here)" in line
    assert "name another --workdir" in line
    assert (workdir / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no config: give --config=configs/NAME.py"),
        (("--config=configs/nowhere.py",), "configs/nowhere.py is not a config that can be read: set one of configs/"),
        (("--config=configs/variants.py",), "configs/variants.py is not a config that can be read: set one of configs/"),
        (("--config=configs/plane3d.py:robust",), "'robust' is unknown: set one of ddpm, invariance"),
        ((f"{DEMO}:ddpm",), "configs/ablations/demo.py takes no variant: leave out :ddpm"),
        ((PLANE, "--config.train.stepz=3"), "no such key: 'stepz' Did you mean \"steps\""),
        ((DEMO, "--config.train.steps=3"), "no such key: 'train' (a list of runs has the keys of its runs in config.base)"),
        (
            (DEMO, "--config.base.train.batch_size=128", "--config.base.robust.cut=0.2"),
            "config.base.robust.cut would not be read by any run of the list 'demo'",
        ),
        ((PLANE, "--config.robust.cut=0.2"), "config.robust.cut=0.2 would not be read: it needs config.robust.weight=cutoff"),
        ((PLANE, "--config.poison.radius=0.1"), "config.poison.radius=0.1 would not be read: it needs --mode=poison"),
        ((PLANE, "--config.train.steps=many"), "--config.train.steps=many"),
        ((PLANE, "--mode=fly"), "--mode=fly"),
        ((PLANE, "--nosuchflag"), "nosuchflag"),
        ((PLANE, "steps=3"), "'steps=3' is not a flag: values are given as --config.a.b=value"),
        ((PLANE, "--config.robust.rho=-1.0"), "config.robust.rho=-1.0 is out of range: set a value in [0, inf)"),
        ((PLANE, "--config.train.batch_size=510"), "config.train.batch_size=510 is not divisible by the 8 devices: set 504"),
        ((PLANE, "--config.evaluation.metrics=('speed',)"), "config.evaluation.metrics='speed' is unknown: set one of plane"),
        (
            (MIXTURE, "--config.evaluation.metrics=('plane',)"),
            "config.evaluation.metrics: plane: data.source=mixture has no plane",
        ),
        ((PLANE, "--mode=evaluate"), "holds no run: train first (--mode=train)"),
        ((DEMO, "--shard=4/4"), "--shard=4/4: give i/n with 0 <= i < n"),
        (
            (PLANE, "--process_id=1"),
            "--coordinator, --num_processes and --process_id go together, with --distributed: give all",
        ),
        ((PLANE, "--config.seed=-1"), "config.seed=-1 is out of range: set a value in [0, inf)"),
        ((PLANE, "--config.data.fraction=1.5"), "config.data.fraction=1.5 is out of range: set a value in [0, 1]"),
        (
            (PLANE, "--config.train.learning_rate=0.0"),
            "config.train.learning_rate=0.0 is out of range: set a value in (0, 1e38]",
        ),
        ((PLANE, "--config.train.steps=0"), "config.train.steps=0 is out of range: set a value in [1, inf)"),
        ((PLANE, "--config.train.max_skipped=0"), "config.train.max_skipped=0 is out of range: set a value in [1, inf)"),
        ((PLANE, "--config.train.warmup_steps=5000"), "config.train.warmup_steps=5000 must be smaller than config.train.steps"),
        ((PLANE, "--config.train.accumulate=7"), "config.train.accumulate=7 must divide the batch of a device, which is 64"),
        ((PLANE, "--config.diffusion.schedule=vp"), "config.diffusion.schedule='vp' is unknown: set one of vp_linear"),
        ((PLANE, "--config.diffusion.schedule=edm"), "config.diffusion.grid_steps=1000: schedule=edm has no discrete grid"),
        ((PLANE, "--config.sampling.method=dd1m"), "config.sampling.method='dd1m' is unknown; did you mean ddpm?"),
        (
            (PLANE, "--config.sampling.eta=0.5"),
            "config.sampling.eta=0.5 would not be read: it needs config.sampling.method=ddim",
        ),
        ((PLANE, "--config.sampling.variance=learned"), "config.sampling.variance='learned' needs config.diffusion.learn_var"),
        ((PLANE, "--config.sampling.ema_decay=0.5"), "config.sampling.ema_decay=0.5 is not an average of this run: set one of"),
        ((PLANE, "--config.network.heads=2"), "config.network.heads=2 would not be read: it needs config.network.kind=unet"),
        ((PLANE, "--config.data.corruptions=('jpeg',)"), "jpeg needs images, and data.source=plane3d has none"),
        ((PLANE, "--config.data.source=folder"), "config.data.path='' is not a folder: set a folder of images"),
        (
            (PLANE, "--config.data.source=points", "--config.data.path=/nowhere.npy"),
            "config.data.path='/nowhere.npy' is not a readable .npy or .npz file (No such file or directory)",
        ),
        ((PLANE, "--config.init_from=/nowhere"), "config.init_from=/nowhere cannot be used to initialise this run"),
        (
            (PLANE, "--config.init_from=~nosuchuser/run"),
            "config.init_from=~nosuchuser/run cannot be used to initialise this run",
        ),
        ((PLANE, "--mode=poison"), "config.poison.checkpoint='' holds no run: set the workdir of the run to attack"),
        (
            ("--config=configs/digits.py", "--config.network.attention_resolutions=(5,)"),
            "attention_resolutions=(5,): no level has height 5; set some of the heights 8, 4",
        ),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(tmp_path, args, message):
    process = call(*args, f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert process.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_mistake_ends_in_one_line_in_a_process_too(tmp_path):
    process = launch(PLANE, f"--workdir={tmp_path / 'run'}", devices=3)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.strip() == "error: config.train.batch_size=512 is not divisible by the 3 devices: set 510"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def get_config(variant=None):\n    from configs import plane3d\n    plane3d.get_config().train.stepz = 3\n",
            "line 3: no such key",
        ),
        ("x = 1\n", "is not a config that can be read"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    process = call(f"--config={tmp_path / 'mine.py'}")
    assert process.returncode == 2
    assert "mine.py" in process.stderr
    assert message in process.stderr


def test_a_bug_in_a_config_file_keeps_its_traceback(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(variant=None):\n    return {}.missing\n")
    with pytest.raises(AttributeError, match="missing"):
        call(f"--config={tmp_path / 'mine.py'}")


def test_a_folder_that_is_not_empty_or_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    process = call(PLANE, f"--workdir={tmp_path / 'file' / 'run'}")
    assert process.returncode == 2
    assert "cannot be used (Not a directory): name another with --workdir" in process.stderr
    process = call(PLANE, "--mode=preview", f"--workdir={tmp_path / ('x' * 300)}")
    assert process.returncode == 2
    assert "cannot be used (File name too long): name another with --workdir" in process.stderr
    process = call(PLANE, f"--workdir={tmp_path}")
    assert process.returncode == 2
    assert f"{tmp_path} is not empty and holds no run: name another --workdir" in process.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_divergence_is_said_and_keeps_the_last_good_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    process = call(PLANE, *TINY, f"--workdir={workdir}", "--config.train.learning_rate=1e30")
    assert process.returncode == 2, process.stderr
    line = process.stderr.splitlines()[-1]
    assert "training diverged" in line
    assert "lower config.train.learning_rate" in line
    assert not (workdir / "checkpoints" / "60").exists()
    assert not (workdir / "results.json").exists()


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    process = call(PLANE, "--mode=preview", f"--workdir={tmp_path / 'a' / 'b'}")
    assert process.returncode == 2
    assert f"workdir {tmp_path}/a/b cannot be used (Permission denied): name another with --workdir" in process.stderr


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 2), (errno.EBADF, None)])
def test_a_disk_that_is_full_is_no_bug(tmp_path, monkeypatch, number, status):
    def write(*args):
        raise OSError(number, os.strerror(number), "metrics.jsonl")

    monkeypatch.setattr(MetricsLog, "write", write)
    with contextlib.nullcontext() if status else pytest.raises(OSError, match="metrics"):
        process = call(PLANE, *TINY, f"--workdir={tmp_path / 'run'}")
        assert process.returncode == status
        said = "error: [Errno 28] No space left on device: 'metrics.jsonl': make room and run the same command again"
        assert process.stderr.splitlines()[-1] == said


def test_a_list_of_runs_is_split_skips_what_is_done_and_joins(tmp_path):
    workdir = tmp_path / "list"
    small = [
        "--config=configs/ablations/plane3d_variants.py",
        *(arg.replace("--config.", "--config.base.") for arg in TINY),
        "--config.base.evaluation.field_levels=()",
        "--config.seeds=(0,1)",
        f"--workdir={workdir}",
    ]
    # Two of the twenty runs: the first shard of ten holds the first and the eleventh.
    first = call(*small, "--shard=0/10")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"open {workdir}/report.html"
    done = sorted(str(path.parent.relative_to(workdir)) for path in workdir.glob("*/*/results.json"))
    assert done == ["p0_ddpm/seed_0", "p90_ddpm/seed_0"]
    table = (workdir / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["run", "---", "p0_ddpm", "p90_ddpm"]
    page = (workdir / "report.html").read_text()
    assert "Not finished yet: p0_ddpm/seed_1" in page
    assert page.count('alt="training data"') == 2  # two different data sets
    assert page.count('alt="samples: p90_ddpm"') == 1
    assert (workdir / "plots" / "samples.png").read_bytes().startswith(b"\x89PNG")
    joint = json.loads((workdir / "results.json").read_text())
    single = json.loads((workdir / "p90_ddpm" / "seed_0" / "results.json").read_text())
    assert joint["p90_ddpm/w2"] == single["w2"]

    stamps = {path: path.stat().st_mtime_ns for path in workdir.glob("*/*/**/*") if path.is_file()}
    more = call(*small, "--shard=0/10")
    assert more.returncode == 0
    assert more.stderr.count("already finished") == 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_launch_is_the_only_place_that_reads_flags():
    for path in (ROOT / "advdiff_jax").rglob("*.py"):
        assert "DEFINE_" not in path.read_text(), path
        assert "FLAGS" not in path.read_text(), path
