"""Runs launch.py as a user would, in a process of its own with one device."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

# plane3d in a few seconds: every stage of the real run, small.
TINY = [
    "--config.train.steps=60",
    "--config.train.batch_size=32",
    "--config.train.warmup_steps=5",
    "--config.train.log_every=10",
    "--config.train.checkpoint_every=20",
    "--config.data.num_examples=500",
    "--config.network.width=16",
    "--config.sampling.steps=5",
    "--config.evaluation.num_samples=100",
    "--config.evaluation.looks=()",
]


def command(*args):
    return [sys.executable, "launch.py", *map(str, args)]


def environment(devices=1):
    """The environment of a process with so many devices."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": f"--xla_backend_optimization_level=0 {count}", "PYTHONPATH": str(ROOT)}


def launch(*args, timeout=240, devices=1):
    """Runs to its end; returns the finished process with its output as text."""
    return subprocess.run(
        command(*args), cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*args):
    """Starts and returns the process."""
    return subprocess.Popen(
        command(*args), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
