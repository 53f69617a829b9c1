"""Measures how fast the data pipeline delivers CIFAR-10, and how fast its training step consumes it: python -m benchmarks.data.

The set is CIFAR-10 in its own format, prepared by TFDS's builder from a raw archive that is made here of photographs'
crops: reading, decoding, corruption, mirroring and the way through worker processes cost what they cost in training.
"""

import contextlib
import io
import itertools
import os
import pathlib
import tarfile
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import benchmarks
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import photos, prepare
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.training import parallel, state
from configs import cifar10

BATCH = 128


def raw_cifar10(folder: pathlib.Path, per_file: int) -> None:
    """Writes cifar-10-binary.tar.gz as upstream lays it out: 6 files of `per_file` images with a byte of label each."""
    images = photos.photo_crops(6 * per_file, 0, 32).transpose(0, 3, 1, 2).reshape(6 * per_file, -1)
    rows = np.concatenate([np.zeros((6 * per_file, 1), np.uint8), images], axis=1)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    files = {name: rows[i * per_file : (i + 1) * per_file].tobytes() for i, name in enumerate(names)}
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, data in {"batches.meta.txt": "\n".join("abcdefghij").encode(), **files}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def pipeline_rate(workers: int, seconds: float = 10.0, per_file: int = 2000) -> float:
    """Measures images a second of configs/cifar10.py's training set, corrupted and mirrored, with `workers` processes."""
    with tempfile.TemporaryDirectory() as folder:
        raw_cifar10(pathlib.Path(folder), per_file)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # TFDS's progress bars
            prepare.prepare("cifar10", folder, folder, check_archives=False)
        config = cifar10.get_config()
        config.data.data_dir = folder
        source = BatchSource(build_data(config).train, BATCH, seed=0, flip=config.data.flip)
        iterator = batches(source, 0, workers, config.data.read_ahead)
        try:
            # What was read ahead while the processes started must not count.
            for _ in range(2 * max(1, workers) * config.data.read_ahead):
                next(iterator)
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                next(iterator)
                count += BATCH
            return count / (time.perf_counter() - started)
        finally:
            iterator.close()


def step_rate(steps: int = 3) -> float:
    """Measures images a second that the training step of configs/cifar10.py consumes on all devices of this process."""
    config = cifar10.get_config()
    per_device = 2 if jax.default_backend() == "cpu" else BATCH // jax.device_count()
    config.train.batch_size = per_device * jax.device_count()
    experiment = build_experiment(resolve(config), (32, 32, 3))
    replicated = parallel.replicate(state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer))
    images = np.zeros((config.train.batch_size, 32, 32, 3), np.uint8)
    batch = next(parallel.shard(itertools.repeat({"examples": images})))
    step = parallel.parallel_train_step(experiment.steps[True])
    replicated, metrics = step(replicated, jax.random.key(1), batch)  # compiles
    jax.block_until_ready(metrics)
    started = time.perf_counter()
    for _ in range(steps):
        replicated, metrics = step(replicated, jax.random.key(1), batch)
    jax.block_until_ready(jnp.asarray(metrics["loss"]))
    return steps * config.train.batch_size / (time.perf_counter() - started)


def data_table() -> dict[str, float]:
    """Returns name -> number: rates in images a second, and the rate of the pipeline over that of the step."""
    workers = max(1, os.cpu_count() or 1)
    delivered, consumed = pipeline_rate(workers), step_rate()
    return {
        "data_workers": workers,
        "images_per_second": delivered,
        "cifar10_step_images_per_second": consumed,
        "data_ratio": delivered / consumed,
    }


def main() -> None:
    """Prints the table, or with --json one line of JSON: {"data": ...}."""
    args = benchmarks.parser("data", __doc__).parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for it
    benchmarks.show("data", data_table(), args.json)


if __name__ == "__main__":
    main()
