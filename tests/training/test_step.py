"""The train step of a subsampled penalty, spread over all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state
from configs import plane3d


def test_robust_fast_takes_a_step_with_one_example_of_sixteen():
    """Each of 8 devices holds 16 examples, hence one group; the residual is that of the examples sampled."""
    config = plane3d.get_config("robust_fast")
    config.train.batch_size, config.network.width, config.data.num_examples = 128, 16, 128
    config = resolve(config)
    assert config.robust.group_size == 16
    experiment = build_experiment(config, (3,))
    start = state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer)
    batch = {"examples": jnp.asarray(build_data(config).train).reshape(8, 16, 3)}

    step, run = parallel.parallel_train_step(experiment.steps[True]), parallel.replicate(start)
    for _ in range(2):  # the learning rate of the first is 0
        run, metrics = step(run, jax.random.key(1), batch)
    run, metrics = jax.device_get((parallel.first_replica(run), parallel.first_replica(metrics)))
    assert metrics.keys() == {"loss", "denoising", "residual", "penalty", "grad_norm", "skipped"}
    assert metrics["residual"] > 0.0
    assert metrics["penalty"] > 0.0
    np.testing.assert_allclose(metrics["loss"], metrics["denoising"] + metrics["penalty"], rtol=1e-5)
    assert run.step == 2
    moved = max(jax.tree.leaves(jax.tree.map(lambda a, b: np.max(np.abs(a - b)), run.params, start.params)))
    assert moved == pytest.approx(config.train.learning_rate / config.train.warmup_steps, rel=0.1)  # Adam's first step
