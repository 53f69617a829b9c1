"""Runs launch.py as a user would: in a process of its own with one device, or, which is quicker, in this one."""

import contextlib
import io
import logging
import os
import pathlib
import re
import subprocess
import sys
import unittest.mock

from absl import flags

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
    "--config.evaluation.diagnostics=()",
]


def command(*args):
    return [sys.executable, "launch.py", *map(str, args)]


def environment(devices=1):
    """Returns the environment of a process with `devices` devices, which compiles as this one."""
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


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


def call(*args):
    """Calls launch.main in this process, on its devices; returns what `launch` does. A traceback is an error of the test."""
    import launch as module  # defines flags

    argv, out, err = ["launch.py", *map(str, args)], io.StringIO(), io.StringIO()
    log = logging.StreamHandler(err)
    logging.getLogger().addHandler(log)
    try:
        flags.FLAGS.unparse_flags()
        with (
            unittest.mock.patch.object(sys, "argv", argv),
            contextlib.chdir(ROOT),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = module.main(argv)
    finally:
        logging.getLogger().removeHandler(log)
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)  # of the overrides
        for flag in flags.FLAGS.flags_by_module_dict()["launch"]:
            flag.unparse()
        flags.FLAGS.mark_as_parsed()
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())
