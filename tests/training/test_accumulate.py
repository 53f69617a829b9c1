"""A batch in micro-batches gives the step of the whole batch: gradient, metrics, noise floor, and every example's own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state
from configs import digits, plane3d

BATCH = 64


def steps_taken(config, shape, kind, micro_batches):
    """Takes two steps from random parameters; returns the state and the metrics of the second."""
    config.train.batch_size, config.train.warmup_steps = BATCH, 0
    config = resolve(config)
    experiment = build_experiment(config, shape)
    shapes, rng = jax.eval_shape(experiment.init, jax.random.key(0)), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, leaf.dtype), shapes)  # layers that start at 0, too
    run = parallel.replicate(state.create(params, experiment.optimizer))
    batch = {"examples": jnp.asarray(build_data(config).train[:BATCH]).reshape(8, BATCH // 8, *shape)}
    if config.objective == "ambient_oracle":
        batch["noise_std"] = jnp.linspace(0.0, 0.2, BATCH).reshape(8, -1)
    step = parallel.parallel_train_step(experiment.steps[kind], micro_batches)
    for _ in range(2):
        run, metrics = step(run, jax.random.key(1), batch)
    return jax.device_get((parallel.first_replica(run), parallel.first_replica(metrics)))


def assert_equal_steps(get_config, variant, shape, kind, micro_batches, **overrides):
    results = []
    for parts in (1, micro_batches):
        config = get_config(variant)
        config.update_from_flattened_dict(overrides)
        results.append(steps_taken(config, shape, kind, parts))
    (whole, expected), (parts, metrics) = results
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-6, err_msg=name)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    return whole, metrics


@pytest.mark.parametrize(
    ("variant", "kind"), [("robust_fast", True), ("robust_fast", False), ("at_diff", True), ("ambient_oracle", True)]
)
def test_micro_batches_are_the_whole_batch(variant, kind):
    """Covers groups, random radii and the noise floor of `robust_fast`, several updates, and a batch with more entries."""
    sizes = {
        "network.width": 16,
        "network.depth": 1,
        "data.num_examples": BATCH,
        "robust.group_size": 2,
        "robust.bias_max": 0.1,
    }
    run, _ = assert_equal_steps(plane3d.get_config, variant, (3,), kind, 4, **sizes)
    measured = variant == "robust_fast" and not kind
    assert (float(jnp.sum(run.noise_floor.count)) > 0.0) == measured


def test_masks_of_dropout_stay_with_their_examples():
    # Without attention: the bias of its keys has the gradient 0, and Adam scales its rounding up to the learning rate.
    sizes = {"base_channels": 4, "channel_mults": (1,), "res_blocks": 1, "attention_resolutions": (), "dropout": 0.2}
    sizes["add_attention"] = False
    sizes = {f"network.{name}": value for name, value in sizes.items()}
    assert_equal_steps(digits.get_config, "ddpm", (8, 8, 1), False, 2, **sizes, **{"train.learning_rate": 1e-4})


def test_flops_count_every_micro_batch():
    """The compiler counts the body of a loop once: a step in four parts would seem to cost a quarter."""
    config = plane3d.get_config("ddpm")
    config.update_from_flattened_dict({"train.batch_size": 512, "network.width": 32})
    experiment = build_experiment(resolve(config), (3,))
    fresh = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    run = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((8, *leaf.shape), leaf.dtype), fresh)
    arguments = run, jax.random.key(1), {"examples": jax.ShapeDtypeStruct((8, 64, 3), jnp.float32)}
    shares = experiment.step_schedule.shares()
    whole, parts = (
        parallel.mean_flops(parallel.compile_steps(shares, experiment.steps, *arguments, micro_batches=count))
        for count in (1, 4)
    )
    assert parts == pytest.approx(whole, rel=0.1)
