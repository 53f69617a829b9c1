"""A run that is killed at random moments, again and again, ends bit for bit as one that was not.

It takes minutes, so `make kills` and the CI run it, and `make test` does not. KILLS sets the number of kills.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training.checkpoint import restore_latest
from advdiff_jax.training.log import read_metrics
from configs import plane3d
from tests.launching import ROOT, TINY, environment

KILLS = int(os.environ.get("KILLS", "20"))
RUN = ("--config=configs/plane3d.py:robust_adv", *TINY, "--config.evaluation.metrics=()", "--config.evaluation.field_levels=()")
DISTRIBUTED = ("--distributed", "--num_processes=2")


def processes(count, workdir, steps, checkpoint_every):
    """Starts a run in one or two processes."""
    args = (
        *RUN,
        f"--config.train.steps={steps}",
        f"--config.train.checkpoint_every={checkpoint_every}",
        f"--workdir={workdir}",
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{listener.getsockname()[1]}"
    of = [()] if count == 1 else [(*DISTRIBUTED, address, f"--process_id={i}") for i in range(count)]
    env = environment() | {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"} if count > 1 else environment()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen([sys.executable, "launch.py", *args, *more], cwd=ROOT, env=env, **quiet) for more in of]


def last_step(workdir):
    rows = read_metrics(workdir)
    return rows[-1]["step"] if rows else 0


def final_state(workdir):
    config = plane3d.get_config("robust_adv")
    config.network.width = 16
    experiment = build_experiment(resolve(config), (3,))
    return restore_latest(workdir, experiment.init, experiment.optimizer).state


@pytest.mark.parametrize(("count", "kills", "steps", "checkpoint_every"), [(1, KILLS - 2, 100 * KILLS, 10), (2, 2, 400, 20)])
def test_killed_again_and_again(tmp_path, count, kills, steps, checkpoint_every):
    uninterrupted, workdir, rng = tmp_path / "uninterrupted", tmp_path / "run", random.Random(0)
    assert [one.wait(timeout=900) for one in processes(count, uninterrupted, steps, checkpoint_every)] == [0] * count
    done = inside_a_save = 0
    while not (workdir / "results.json").exists():
        before, running = last_step(workdir), processes(count, workdir, steps, checkpoint_every)
        while done < kills and last_step(workdir) <= before and any(one.poll() is None for one in running):
            time.sleep(0.01)  # until it has gone on
        if done < kills:
            time.sleep(rng.uniform(0.0, 0.3))
            for one in running:
                with contextlib.suppress(ProcessLookupError):
                    one.send_signal(signal.SIGKILL)
            statuses = [one.wait() for one in running]
            assert {0, -signal.SIGKILL} & {*statuses}, statuses  # 0: finished too early, which the end of the test refuses
            done += -signal.SIGKILL in statuses
            inside_a_save += any((workdir / "checkpoints").glob("*tmp*"))
        else:
            assert [one.wait(timeout=900) for one in running] == [0] * count
    print(f"{count} processes: {done} kills, {inside_a_save} of them inside a save")
    assert done == kills
    found, expected = final_state(workdir), final_state(uninterrupted)
    assert found.step == expected.step == steps
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [[row["step"] for row in read_metrics(folder)] for folder in (workdir, uninterrupted)]
    assert rows[0] == rows[1]
    shutil.rmtree(tmp_path)
