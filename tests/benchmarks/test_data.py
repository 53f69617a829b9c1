"""The benchmark of the data pipeline: TFDS's builder reads the archive that it makes, and rates are counts over time."""

import itertools
import json
import types

import numpy as np

from benchmarks import data


def test_the_rate_is_the_number_of_images_over_the_seconds(monkeypatch):
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr(data.time, "perf_counter", lambda: next(clock))
    # Looks at the clock: once at the start, before each batch, and at the end: 0, 0.5, 1.0 (too late), 1.5.
    assert data.pipeline_rate(workers=0, seconds=1.0, per_file=8) == data.BATCH / 1.5


def test_the_table_compares_the_pipeline_with_the_step(monkeypatch, capsys):
    monkeypatch.setattr(data, "pipeline_rate", lambda workers: 600.0 + 0 * workers)
    monkeypatch.setattr(data, "step_rate", lambda: 200.0)
    table = data.data_table()
    assert table["data_workers"] >= 1
    assert (table["images_per_second"], table["cifar10_step_images_per_second"], table["data_ratio"]) == (600.0, 200.0, 3.0)
    for flag, shown in (["--json"], json.dumps({"data": table})), ([], "images_per_second"):
        monkeypatch.setattr("sys.argv", ["data", *flag])
        data.main()
        assert shown in capsys.readouterr().out


def test_the_step_of_the_benchmark_takes_the_batches_of_the_pipeline(monkeypatch):
    """The step itself, of 53 million parameters, is replaced: what it is given is looked at."""
    seen = []

    def step(run, key, batch):
        seen.append(batch["examples"])
        return run, {"loss": np.float32(0.0)}

    clock = iter([0.0, 4.0])
    monkeypatch.setattr(data.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(data.parallel, "parallel_train_step", lambda pure: step)
    monkeypatch.setattr(data.parallel, "replicate", lambda tree: tree)
    monkeypatch.setattr(data, "state", types.SimpleNamespace(create=lambda params, optimizer: None))
    monkeypatch.setattr(data.jax, "jit", lambda function: lambda key: None)
    assert data.step_rate(steps=2) == 2 * 16 / 4.0  # on a CPU two images a device
    assert [(x.shape, x.dtype) for x in seen] == [((8, 2, 32, 32, 3), np.uint8)] * 3  # one of them compiles
