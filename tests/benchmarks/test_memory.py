"""The benchmark of memory: what fits follows from two compiled steps, and rematerialisation lowers the compiler's figure."""

import subprocess
import sys

from benchmarks import memory
from benchmarks.scaling import StepFigures
from tests.launching import ROOT, environment


def test_what_fits_follows_from_a_batch_of_one_and_of_two(monkeypatch):
    """A step of 3 + 2 n GB: in 0.9 * 16 GB fit 5 images, in 0.9 * 40 GB 16, and in 0.9 * 80 GB 34."""
    monkeypatch.setattr(
        memory,
        "step_figures",
        lambda config, shape: StepFigures(1.0, 10**9, (2 + 2 * config.train.batch_size) * 10**9, 0, 0.0),
    )
    (row,) = memory.memory_table(variants=("ddpm",), settings={"float32": {}}).values()
    assert row == {
        "state_gb": 1.0,
        "fixed_gb": 3.0,
        "image_gb": 2.0,
        "batch_in_16_gb": 5,
        "batch_in_40_gb": 16,
        "batch_in_80_gb": 34,
    }
    assert memory.fitting(20e9, 1e9, 16e9) == 0


def test_rematerialisation_and_bfloat16_keep_less_for_the_backward_pass():
    """A convolution keeps its input, and a block that is computed again its own input alone."""

    def small(variant):
        config = memory.config_256(variant)
        config.network.update({"base_channels": 8, "channel_mults": (1, 2), "res_blocks": 1, "attention_resolutions": ()})
        return config

    table = memory.kept_table(small, (32, 32, 3))
    kept = {name: row["kept_gb"] for name, row in table.items()}
    assert kept["float32"] > 20 * 32 * 32 * 8 * 4 / 1e9  # twenty arrays of the first level
    assert kept["remat"] < 0.35 * kept["float32"]
    assert kept["bfloat16"] < 0.8 * kept["float32"]
    assert kept["bfloat16, remat"] < 0.8 * kept["remat"]


PROGRAM = """
import jax, jax.numpy as jnp
from advdiff_jax.networks.unet import UNet

x, t = jnp.zeros((8, 16, 16, 1)), jnp.zeros(8)
for remat in (False, True):
    network = UNet(8, (1,), 3, (), 1, remat=remat)
    params = jax.eval_shape(network.init, jax.random.key(0), x, t)
    loss = lambda params: jnp.mean(network.apply(params, x, t) ** 2)
    print(jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes)
"""


def test_rematerialisation_takes_less_memory():
    """In a process of its own, because the flag of `benchmarks.memory` is read when jax starts."""
    env = environment(devices=1)
    env["XLA_FLAGS"] += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=env, cwd=ROOT, capture_output=True, text=True)
    kept, again = map(int, done.stdout.split())
    assert 0 < again < 0.95 * kept  # more on accelerators, see `benchmarks.memory`
