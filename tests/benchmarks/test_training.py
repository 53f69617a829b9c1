"""The cost model of `builders.objectives.ObjectiveSpec`, by the compiler's own count of the step; and the benchmark's table."""

import json

import jax
import jax.numpy as jnp
import pytest

from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.steps import evaluations
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state
from benchmarks import training
from configs import digits, plane3d
from configs.variants import VARIANTS


def flops(config, shape=(8, 8, 1)):
    """Of the mean step before the compiler's optimisations, which change them by less than 1 % and take ten times as long."""
    config.train.batch_size = 128  # sixteen a device
    config = resolve(config)
    experiment = build_experiment(config, shape)
    fresh = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    run = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), fresh)
    batch = {"examples": jax.ShapeDtypeStruct((1, config.train.batch_size, *shape), jnp.float32)}
    if objective_spec(config).needs_noise_std or objective_spec(config).by_level == "above":
        batch["noise_std"] = jax.ShapeDtypeStruct((1, config.train.batch_size), jnp.float32)
    if objective_spec(config).needs_mask(config):
        batch["mask"] = jax.ShapeDtypeStruct((1, config.train.batch_size, *shape[:2], 1), bool)
    return sum(
        share
        * parallel.parallel_train_step(experiment.steps[kind]).lower(run, jax.random.key(1), batch).cost_analysis()["flops"]
        for kind, share in experiment.step_schedule.shares().items()
    )


def small(variant):
    config = digits.get_config(variant)
    config.network.update({"base_channels": 64, "channel_mults": (1,), "res_blocks": 1, "attention_resolutions": ()})
    return config


@pytest.fixture(scope="module")
def ddpm():
    return flops(small("ddpm"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_costs_what_it_declares(variant, ddpm):
    """forward 1, input-only backward 1, full backward 2: DDPM 3, Robust_ran 6, Robust_adv 8 (clean forward reused)."""
    config = small(variant)
    assert flops(config) / ddpm == pytest.approx(evaluations(config, 1000) / 1000 / 3.0, rel=0.02)


def test_the_table_holds_the_flops_of_the_compiled_step_and_the_seconds_of_the_clock(monkeypatch, capsys):
    ticks = iter(range(1000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(ticks)))  # a second passes between two looks at it
    monkeypatch.setattr(
        "sys.argv", ["training", "--config=plane3d", "--json", "--rounds=1", "--steps=4", "--variants", "robust_ran"]
    )
    training.main()
    table = json.loads(capsys.readouterr().out)["variants"]
    assert table.keys() == {"ddpm", "robust_ran"}
    # The batch of the table is four times as large, and each of eight devices updates all parameters: up to a tenth more.
    batch, found = 4 * flops(plane3d.get_config("ddpm"), (3,)), table["ddpm"]["flops"]
    assert batch < found < 1.1 * batch
    assert 1.6 < table["robust_ran"]["flops_ratio"] < 2.0  # the compiler computes the embedding of t once for both passes
    assert table["robust_ran"]["temp_bytes_ratio"] > 1.0
    assert table["ddpm"]["flops_ratio"] == table["ddpm"]["temp_bytes_ratio"] == 1.0
    for row in table.values():
        assert row.keys() == {"flops", "flops_ratio", "temp_bytes_ratio", "seconds", "seconds_ratio"}
        assert (row["seconds"], row["seconds_ratio"]) == (0.25, 1.0)  # one second for four steps
