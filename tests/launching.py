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
]


def command(*args):
    return [sys.executable, "launch.py", *map(str, args)]


def environment():
    return os.environ | {"XLA_FLAGS": ""}


def launch(*args, timeout=240):
    """Runs to its end; returns the finished process with its output as text."""
    return subprocess.run(
        command(*args), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*args):
    """Starts and returns the process."""
    return subprocess.Popen(
        command(*args), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
