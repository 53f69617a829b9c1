"""The command as a user meets it: what it writes, and the one line after a mistake."""

import json

import pytest

from tests.launching import ROOT, TINY, launch

PLANE = "--config=configs/plane3d.py:robust_ran"
LOOKS = (*TINY[:-1], "--config.evaluation.looks=('transfer',)")
MIXTURE = "--config=configs/mixture.py:ddpm"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run of the plane."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}")
    assert process.returncode == 0, process.stderr
    return workdir, process


def test_a_run_writes_what_the_design_says(finished):
    workdir, process = finished
    assert process.stdout.splitlines()[-1] == f"open {workdir}/report.html"
    assert "Traceback" not in process.stderr
    # No terminal: plain lines, one a window, with loss, rate and time left.
    lines = [line for line in process.stdout.splitlines() if line.startswith("plane3d:robust_ran: step")]
    assert len(lines) == 6
    assert all("loss" in line and "steps/s" in line and "s left" in line for line in lines)

    config = json.loads((workdir / "config.json").read_text())
    assert (config["variant"], config["train"]["steps"]) == ("robust_ran", 60)
    assert config["robust"]["bias_max"] == config["robust"]["bias_min"] == 8 / 255  # references are resolved
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert {"loss", "denoising", "violation", "regularizer", "grad_norm", "steps_per_second"} <= rows[0].keys()
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert list(workdir.glob("events.out.tfevents.*"))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["40", "60"]
    assert (workdir / "samples" / "step_60.png").read_bytes().startswith(b"\x89PNG")
    plots = {"curves.png", "data_clean.png", "data_dirty.png", "score_field.png", "trajectories.png", "transfer.png"}
    assert {path.name for path in (workdir / "plots").iterdir()} == plots | {"fields.npz", "fields_exact.npz", "transfer.json"}
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
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}")
    assert process.returncode == 0
    assert "already finished" in process.stderr
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_evaluate_with_another_sampler_keeps_the_runs_own_results(finished):
    workdir, _ = finished
    before = (workdir / "results.json").read_text()
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}", "--mode=evaluate", "--config.sampling.method=ddim")
    assert process.returncode == 0, process.stderr
    other = workdir / "evaluations" / "sampling.method=ddim"
    assert process.stdout.strip() == f"open {other}/report.html"
    assert json.loads((other / "results.json").read_text())["w2"] != json.loads(before)["w2"]
    assert (workdir / "results.json").read_text() == before


def test_sample_mode_draws_the_same_samples(finished):
    workdir, _ = finished
    drawn = workdir / "samples" / "step_60.npy"
    before = drawn.read_bytes()
    drawn.unlink()
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}", "--mode=sample")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"open {workdir}/samples/step_60.png"
    assert drawn.read_bytes() == before


def test_samples_while_training(tmp_path):
    process = launch(MIXTURE, *TINY, f"--workdir={tmp_path / 'run'}", "--config.train.sample_every=30")
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "samples").glob("*.png")) == ["step_30.png", "step_60.png"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no config: give --config=configs/NAME.py"),
        (("--config=configs/nowhere.py",), "configs/nowhere.py is not a config that can be read: choose one of configs/"),
        (("--config=configs/variants.py",), "configs/variants.py is not a config that can be read: choose one of configs/"),
        (("--config=configs/plane3d.py:robust",), "error: unknown variant 'robust': choose one of ddpm"),
        (("--config=configs/ablations/demo.py:ddpm",), "this config takes no variant: leave out the colon"),
        ((PLANE, "--config.train.stepz=3"), "error: no such key: 'stepz' Did you mean \"steps\""),
        (("--config=configs/ablations/demo.py", "--config.train.steps=3"), "no such key: 'train' (a list of runs has"),
        ((PLANE, "--config.robust.cut=0.2"), "config.robust.cut=0.2 would not be read: it is for config.robust.weight"),
        ((PLANE, "--config.train.steps=many"), "many"),
        ((PLANE, "--mode=fly"), "fly"),
        ((PLANE, "--nosuchflag"), "nosuchflag"),
        ((PLANE, "steps=3"), "'steps=3' is not a flag"),
        ((PLANE, "--config.robust.bias_min=-1.0"), "config.robust: the radius must not be negative"),
        ((PLANE, "--config.data.fraction=1.5"), "config.data.fraction: the corrupted fraction p must lie in [0, 1], got 1.5"),
        ((PLANE, "--config.evaluation.metrics=('speed',)"), "config.evaluation.metrics: 'speed' is not known"),
        ((PLANE, "--config.evaluation.metrics=('noise_energy',)"), "config.evaluation.metrics: noise_energy"),
        ((MIXTURE, "--config.evaluation.metrics=('plane',)"), "config.evaluation.metrics: plane: these data have no plane"),
        ((MIXTURE, "--config.evaluation.metrics=('fd',)"), "config.evaluation.metrics: fd: digits_cnn takes pictures"),
        ((PLANE, "--mode=evaluate"), "holds no run to look at: train first"),
        (("--config=configs/ablations/demo.py", "--shard=4/4"), "--shard=4/4: give i/n with 0 <= i < n"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(tmp_path, args, message):
    process = launch(*args, f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert process.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_among_the_devices_is_refused(tmp_path):
    process = launch(PLANE, f"--workdir={tmp_path / 'run'}", devices=3)
    assert process.returncode == 2
    assert process.stderr.strip() == "error: config.train.batch_size=512 is not divisible by the 3 devices: try 510"


def test_the_workdir_of_another_config_is_refused_by_its_keys(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_text()
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}", "--config.robust.lam=0.5", "--config.seed=7")
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert "robust.lam (0.3 there, 0.5 here)" in line
    assert "seed (0 there, 7 here)" in line
    assert "name another --workdir" in line
    assert (workdir / "config.json").read_text() == before


def test_a_workdir_that_is_someone_elses_or_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    process = launch(PLANE, f"--workdir={tmp_path / 'file' / 'run'}")
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert "cannot be used (Not a directory): name another with --workdir" in line
    process = launch(PLANE, f"--workdir={tmp_path}")
    assert process.returncode == 2
    assert "neither empty nor a run of ours" in process.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_divergence_is_said_and_keeps_the_last_good_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    process = launch(PLANE, *LOOKS, f"--workdir={workdir}", "--config.train.learning_rate=1e30")
    assert process.returncode == 2, process.stderr
    _, line = process.stderr.splitlines()  # the first tells what is trained on
    assert "training diverged; lower config.train.learning_rate" in line
    assert not (workdir / "checkpoints" / "60").exists()


def test_an_ablation_runs_skips_shards_and_joins(tmp_path):
    workdir = tmp_path / "ablation"
    small = [
        "--config=configs/ablations/plane3d_variants.py",
        *(arg.replace("--config.", "--config.base.") for arg in TINY),
        "--config.seeds=(0,1)",
        f"--workdir={workdir}",
    ]
    # Two of the twenty runs: the first shard of ten holds the first and the eleventh.
    first = launch(*small, "--shard=0/10")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"open {workdir}/report.html"
    done = sorted(str(path.parent.relative_to(workdir)) for path in workdir.glob("*/*/results.json"))
    assert done == ["p0_ddpm/seed_0", "p90_ddpm/seed_0"]
    table = (workdir / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["run", "---", "p0_ddpm", "p90_ddpm"]
    page = (workdir / "report.html").read_text()
    assert "Not finished yet: p0_ddpm/seed_1" in page
    assert page.count('alt="trained on"') == 2  # two different data sets
    assert (workdir / "plots" / "samples.png").read_bytes().startswith(b"\x89PNG")
    joint = json.loads((workdir / "results.json").read_text())
    single = json.loads((workdir / "p90_ddpm" / "seed_0" / "results.json").read_text())
    assert joint["p90_ddpm/w2"] == single["w2"]

    stamps = {path: path.stat().st_mtime_ns for path in workdir.glob("*/*/**/*") if path.is_file()}
    again = launch(*small, "--shard=0/10")
    assert again.returncode == 0
    assert again.stderr.count("already finished") == 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_launch_is_the_only_place_that_reads_flags():
    for path in (ROOT / "advdiff_jax").rglob("*.py"):
        assert "DEFINE_" not in path.read_text(), path
        assert "FLAGS." not in path.read_text().replace("FLAGS.mark_as_parsed()", ""), path
