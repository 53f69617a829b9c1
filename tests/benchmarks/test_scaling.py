"""What the compiler says of a training step: work and collectives per device, and the penalty's cost; no hidden transfers."""

import itertools

import jax
import numpy as np
import pytest

from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state
from benchmarks import scaling
from configs import digits, plane3d


def test_a_device_does_its_share_and_devices_talk_once_a_step():
    config = plane3d.get_config("ddpm")
    config.update_from_flattened_dict({"train.batch_size": 1024, "network.width": 32, "network.depth": 1})
    table = scaling.devices_table(config, (3,))
    flops = [row["flops"] for row in table.values()]
    for devices, row in zip((1, 2, 4, 8), table.values(), strict=True):
        assert row["flops"] == pytest.approx(flops[0] / devices, rel=0.1)  # each device updates all parameters
        if devices > 1:
            assert row["collectives"] == 1


def test_measuring_the_noise_floor_adds_no_collective():
    config = plane3d.get_config("robust_adaptive")
    config.update_from_flattened_dict({"train.batch_size": 64, "network.width": 16, "robust.start_step": 4000})
    config.update_from_flattened_dict({"objective": "denoising"})
    assert scaling.step_figures(config, (3,), jax.devices()).collectives == 1


def small(variant):
    config = digits.get_config(variant)
    config.network.update({"base_channels": 16, "channel_mults": (1,), "res_blocks": 1, "attention_resolutions": ()})
    config.train.batch_size = 64
    return config


def test_robust_adv_costs_at_most_2_75_times_ddpm_in_flops_and_2_05_times_in_memory():
    ddpm, robust_adv = (scaling.step_figures(small(variant), (8, 8, 1)) for variant in ("ddpm", "robust_adv"))
    assert 2.5 < robust_adv.flops / ddpm.flops <= 2.75
    assert robust_adv.state_bytes == ddpm.state_bytes
    assert 1.3 < (robust_adv.state_bytes + robust_adv.temp_bytes) / (ddpm.state_bytes + ddpm.temp_bytes) <= 2.05


def test_steps_transfer_nothing_but_their_batch():
    """After the first step nothing crosses between host and device without being asked to."""
    config = plane3d.get_config("robust_adv")
    config.update_from_flattened_dict({"train.batch_size": 64, "network.width": 16})
    experiment = build_experiment(resolve(config), (3,))
    run = parallel.replicate(state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer))
    feed = parallel.shard({"examples": np.zeros((64, 3), np.float32)} for _ in itertools.count())
    step, key = parallel.parallel_train_step(experiment.steps[True]), parallel.on_every_device(jax.random.key(1))
    run, _ = step(run, key, next(feed))
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            run, metrics = step(run, key, next(feed))
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):  # what `on_every_device` is for
            step(run, jax.random.key(1), next(feed))
    assert np.isfinite(parallel.first_replica(metrics)["loss"])


def test_the_dispatch_of_a_step_is_timed_by_the_clock(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: float(next(ticks)))
    assert scaling.dispatch_table(leaves=2, calls=4, rounds=1) == {
        "dispatch_jit_microseconds": 0.25e6,
        "dispatch_mapped_microseconds": 0.25e6,
    }
