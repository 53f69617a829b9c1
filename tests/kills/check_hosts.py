"""Several processes are one run: its numbers, its errors, and a preemption of one of them."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest

from advdiff_jax import modes
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training.log import read_metrics
from configs import plane3d
from tests.launching import ROOT, TINY, environment

ONE_OF_TWO = """
import sys
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
from tests.kills.check_hosts import train
train(sys.argv[3])
"""


def train(workdir):
    """Trains a small run on all devices of all processes."""
    config = plane3d.get_config("robust_ran")
    config.train.update({"steps": 12, "batch_size": 32, "log_every": 4, "checkpoint_every": 6, "warmup_steps": 2})
    config.evaluation.update({"metrics": ("plane", "wasserstein"), "diagnostics": (), "field_levels": (), "num_samples": 64})
    config.data.num_examples, config.sampling.steps, config.sampling.batch_size = 500, 4, 16
    modes.load("train")(resolve(config), pathlib.Path(workdir))


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_are_one_run(tmp_path, free_port):
    """Two hosts with two devices each write one workdir, with the numbers of this process and its eight devices."""
    env = environment(devices=2) | {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    pair = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(free_port), str(i), tmp_path / "two"], env=env, cwd=ROOT)
        for i in range(2)
    ]
    assert [process.wait(timeout=240) for process in pair] == [0, 0]
    train(tmp_path / "one")
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    for name in ("off_plane_rms", "spread_ratio", "w2"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name


ENDS_LATE = """
import sys
import launch
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError

read = BatchSource.__getitem__

def one(source, step):
    if step == 12 and "--process_id=1" in sys.argv:
        raise UserError("image 3 is bad: remove it")
    return read(source, step)

BatchSource.__getitem__ = one
sys.exit(launch.main(sys.argv))
"""


def launch_two(port, program, *args, own=((), ())):
    """Runs the command in two processes, with more arguments of each; returns their (status, lines of stderr)."""
    flags = (*args, "--distributed", f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    env = environment(devices=1) | {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    pair = [
        subprocess.Popen(
            [sys.executable, *program, *flags, f"--process_id={i}", *more],
            env=env,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, more in enumerate(own)
    ]
    found = [process.communicate(timeout=200)[1].splitlines() for process in pair]
    return [(process.returncode, lines) for process, lines in zip(pair, found, strict=True)]


def test_an_error_on_one_host_ends_all(tmp_path, free_port):
    """Both in seconds and with one line: the one that has the error, and the one that waits for it in a collective."""
    program = ("-c", ENDS_LATE)
    config = ("--config=configs/plane3d.py:ddpm", *TINY, "--config.train.steps=10000", "--config.data.read_ahead=0")
    found = launch_two(free_port, program, *config, f"--workdir={tmp_path / 'run'}")
    said = ["error: process 1: image 3 is bad: remove it", "error: image 3 is bad: remove it"]
    assert [(status, lines[-1]) for status, lines in found] == [(2, line) for line in said]
    assert "Traceback" not in "".join(line for _, lines in found for line in lines)


PREEMPTED = """
import os, signal, sys
import launch
from advdiff_jax.data.batches import BatchSource

read = BatchSource.__getitem__

def one(source, step):
    if step == 12 and "--process_id=1" in sys.argv and not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "w").close()
        os.kill(os.getpid(), signal.SIGTERM)
    return read(source, step)

BatchSource.__getitem__ = one
sys.exit(launch.main([sys.argv[0], *sys.argv[2:]]))
"""


def test_a_preemption_of_one_host_stops_all_at_one_step_and_they_go_on(tmp_path, free_port):
    program, run = ("-c", PREEMPTED, str(tmp_path / "preempted")), tmp_path / "run"
    config = (
        "--config=configs/plane3d.py:ddpm",
        *TINY,
        "--config.train.steps=400",
        "--config.data.read_ahead=0",
        "--config.evaluation.metrics=('plane',)",
        "--config.evaluation.field_levels=()",
    )
    found = launch_two(free_port, program, *config, f"--workdir={run}")
    last = "interrupted; run the same command again to go on from where it stopped"
    assert [(status, lines[-1]) for status, lines in found] == [(130, last)] * 2
    stopped = max(int(child.name) for child in (run / "checkpoints").iterdir())
    assert 12 <= stopped < 400
    found = launch_two(free_port + 1, program, *config, f"--workdir={run}")
    assert [status for status, _ in found] == [0, 0]
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == list(range(10, 401, 10))
    assert (run / "report.html").exists()


def test_hosts_that_differ_end_at_the_start(tmp_path, free_port):
    """Each names its own value: two hosts whose workdirs differ would write two halves of a run."""
    own = [(f"--workdir={tmp_path / name}",) for name in ("one", "other")]
    found = launch_two(free_port, ("launch.py",), "--config=configs/plane3d.py:ddpm", own=own)
    for process, (status, lines) in enumerate(found):
        assert status == 2, lines
        (flag,) = own[process]
        name, _, folder = flag.partition("=")
        said = f"error: {name}={folder!r} on process {process} is not the same on all: process 1 differs from process 0; give"
        assert lines[-1].startswith(said)
    assert not list(tmp_path.iterdir())


def test_two_processes_measure_again_and_judge(tmp_path, free_port):
    """All processes read the checkpoint in the middle of a run, and open a finished one: none waits for ever."""
    args = [
        *("--config=configs/digits.py:ambient_blind,tiny", f"--workdir={tmp_path / 'run'}", "--config.evaluation.metrics=()"),
        *("--config.data.source=photo_crops", "--config.data.fraction=0.3", "--config.data.held_out=64"),
        *("--config.data.num_examples=184", "--config.data.num_workers=0"),
        *("--config.train.steps=4", "--config.train.warmup_steps=1"),
        *("--config.noise.again_share=1000", "--config.evaluation.num_samples=16", "--config.sampling.steps=3"),
    ]
    judged = ["--mode=anomaly", "--config.anomaly.levels=(0.5,)", "--config.anomaly.draws=1", "--config.anomaly.examples=16"]
    (status, first), (other, _) = launch_two(free_port, ("launch.py",), *args)
    assert (status, other) == (0, 0)
    assert any("measured again with the model's help" in line for line in first)
    found = launch_two(free_port, ("launch.py",), *args, *judged)
    assert [status for status, _ in found] == [0, 0]
    assert [*(tmp_path / "run").glob("evaluations/*/anomaly/results.json")]  # under other keys than those of the run
    for mode, written in (("noise", "noise/report.html"), ("inspect", "inspect/inspect.txt")):
        found = launch_two(free_port, ("launch.py",), *args, f"--mode={mode}")
        assert [status for status, _ in found] == [0, 0], mode
        assert (tmp_path / "run" / written).exists()
