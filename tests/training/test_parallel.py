"""One device and eight have the same losses, parameters and samples."""

import subprocess
import sys

import jax
import numpy as np

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state
from configs import digits
from tests.launching import ROOT, environment

ON_ONE = """
import sys
import numpy as np
from tests.training.test_parallel import train_and_sample

np.savez(sys.argv[1], **train_and_sample())
"""


def train_and_sample():
    """Takes five steps of the hardest case on all devices of this process; returns losses, samples and the leaves of the state.

    The case: random radius, dropout, an ascent on one example of two, micro-batches, a second average, and remat.
    """
    config = digits.get_config("robust_adv")
    config.network.update(
        {
            "base_channels": 8,
            "channel_mults": (1,),
            "res_blocks": 1,
            "add_attention": False,
            "attention_resolutions": (),
            "dropout": 0.1,
            "remat": True,
        }
    )
    config.train.update({"batch_size": 32, "warmup_steps": 1, "accumulate": 2, "more_ema_decays": (0.9,)})
    config.robust.bias_max, config.robust.group_size = 0.1, 2
    config.sampling.steps, config.sampling.batch_size = 3, 8 // jax.device_count()
    config = resolve(config)
    data = build_data(config)
    experiment = build_experiment(config, data.train.shape[1:])
    run = parallel.replicate(state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer, 1))
    step = parallel.parallel_train_step(experiment.steps[True], config.train.accumulate)
    losses = []
    for batch in parallel.shard({"examples": x} for x in data.train[:192].reshape(6, 32, 8, 8, 1)):
        run, metrics = step(run, jax.random.key(1), batch)
        losses.append(float(parallel.first_replica(metrics)["loss"]))
    samples = np.concatenate([*experiment.sampler(run.ema_params, jax.random.key(2), 12)])
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(parallel.first_replica(run)))
    return {"losses": losses, "samples": samples} | {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def test_one_and_eight_devices_agree(tmp_path):
    """The one is in a process of its own, the eight are those of the tests."""
    subprocess.run([sys.executable, "-c", ON_ONE, tmp_path / "one.npz"], check=True, env=environment(1), cwd=ROOT)
    one, eight = np.load(tmp_path / "one.npz"), train_and_sample()
    assert len(one["losses"]) == 5
    assert jax.device_count() == 8
    np.testing.assert_allclose(one["losses"], eight["losses"], rtol=1e-5)
    for name in eight.keys() - {"losses", "samples"}:
        np.testing.assert_allclose(one[name], eight[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(one["samples"], eight["samples"], atol=1e-4)


def test_the_first_process_alone_writes_what_claims_no_run(monkeypatch):
    called = []
    alone = parallel.on_first_process(lambda value: called.append(value) or value)
    assert alone(1) == 1
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert alone(2) is None
    assert called == [1]
