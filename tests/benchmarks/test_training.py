"""The cost model of `builders_objectives.Entry`, by the compiler's own count of the step."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from advdiff_jax import builders, builders_objectives
from advdiff_jax.training import parallel, state
from configs import digits
from configs.variants import VARIANTS
from tests.launching import ROOT, environment


def flops(config, shape=(8, 8, 1)):
    """Of the mean step before the compiler's optimisations, which change them by less than 1 % and take ten times as long."""
    config.train.batch_size = 128  # sixteen a device
    experiment = builders.build(config, shape)
    fresh = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    run = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), fresh)
    x0 = jax.ShapeDtypeStruct((1, config.train.batch_size, *shape), jnp.float32)
    noise = jax.ShapeDtypeStruct((1, config.train.batch_size), jnp.float32)
    batch = (x0, noise) if builders_objectives.entry(config).knows_noise else x0
    return sum(
        share * parallel.parallel_train_step(step).lower(run, jax.random.key(1), batch).cost_analysis()["flops"]
        for share, step in experiment.plan.parts().values()
    )


@pytest.fixture(scope="module")
def ddpm():
    return flops(digits.get_config("ddpm"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_costs_what_it_declares(variant, ddpm):
    """forward 1, input-only backward 1, full backward 2: DDPM 3, Robust_ran 6, Robust_adv 8 (clean forward reused)."""
    config = digits.get_config(variant)
    assert flops(config) / ddpm == pytest.approx(builders_objectives.evaluations(config, 1000) / 1000 / 3.0, rel=0.02)


@pytest.mark.parametrize(
    ("variant", "overrides", "units"),
    [
        ("ddpm", {}, 3),
        ("robust_ran", {}, 6),
        ("robust_adv", {}, 8),
        ("robust_adv", {"robust.attack_steps": 3}, 12),
        ("at_diff", {}, 9),
        ("at_diff", {"baselines.updates": 2}, 6),
    ],
)
def test_the_units_of_the_cost_model(variant, overrides, units):
    config = digits.get_config(variant)
    config.update_from_flattened_dict(overrides)
    assert builders_objectives.evaluations(config, 1000) / 1000 == units


def test_the_table_holds_the_flops_of_the_compiled_step(ddpm):
    process = subprocess.run(
        [sys.executable, "-m", "advdiff_jax.benchmark", "--json", "--rounds=1", "--steps=1", "--variants=robust_ran"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(process.stdout)["variants"]
    assert table["ddpm"]["flops_ratio"] == table["ddpm"]["seconds_ratio"] == 1.0
    # There the batch is a quarter as large, and the count is taken after the compiler's optimisations.
    assert 4 * table["ddpm"]["flops"] == pytest.approx(ddpm, rel=0.04)  # optimised or not
    assert table["robust_ran"]["flops_ratio"] == pytest.approx(2.00, abs=0.05)
    for row in table.values():
        assert row.keys() == {"flops", "flops_ratio", "temp_bytes_ratio", "seconds", "seconds_ratio"}
        assert row["seconds"] > 0
        assert row["temp_bytes_ratio"] >= 1.0
