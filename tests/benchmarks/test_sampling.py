"""The benchmark of the samplers draws with each of them, and reports the fastest draw."""

import json

import pytest

from advdiff_jax.builders.process import SAMPLERS
from benchmarks import sampling
from configs import digits


def small():
    config = digits.get_config("ddpm")
    config.network.update({"base_channels": 4, "channel_mults": (1,), "attention_resolutions": (), "heads": 1})
    return config


def test_the_fastest_of_the_draws_counts(monkeypatch, capsys):
    clock = iter([0.0, 4.0, 4.0, 5.0, 5.0, 7.0])  # draws of four seconds, one and two
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: next(clock))
    table = sampling.sampling_table(batch_size=2, samplers={"ddim_2": {"method": "ddim", "steps": 2}}, config=small())
    assert table == {"samples_per_second_ddim_2": 2.0}

    monkeypatch.setattr(sampling, "sampling_table", lambda: table)
    for flag, shown in (["--json"], json.dumps({"sampling": table})), ([], "samples_per_second_ddim_2"):
        monkeypatch.setattr("sys.argv", ["sampling", *flag])
        sampling.main()
        assert shown in capsys.readouterr().out


def test_every_sampler_is_measured():
    assert {overrides["method"] for overrides in sampling.SAMPLERS.values()} == SAMPLERS.keys()


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="leapfrog"):
        sampling.sampling_table(samplers={"x": {"method": "leapfrog"}}, config=small())
