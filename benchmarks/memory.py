"""Estimates which batch of 256x256 images fits a device: python -m benchmarks.memory [--variants ddpm] [--kept] [--json].

The network is that of Improved-DDPM for LSUN at 256x256. Each step is compiled from shapes alone, for one and for two images
on a device, and a step is taken to need `fixed + images * each` bytes. These are figures of XLA's CPU back end: an estimate for
accelerators, whose compilers fuse more, keep rematerialised blocks apart, pad small arrays and need scratch memory. On a
CPU bfloat16 is emulated, and what `network.remat` would compute again is merged with what was computed before.

With --kept nothing is compiled: the table is of the arrays that the forward pass of the network keeps for the backward pass, as
JAX differentiates it, before any compiler. It shows what the two settings are for.
"""

import math
import os
import sys

if __name__ == "__main__":
    # By default the CPU back end orders operations for concurrency, which keeps arrays longer than a device would.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_concurrency_optimized_scheduler=false"

import jax
import jax.numpy as jnp
import ml_collections

import benchmarks
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from benchmarks.scaling import step_figures
from configs import lsun_bedroom

SETTINGS = {
    "float32": {},
    "remat": {"network.remat": True},
    "bfloat16": {"network.dtype": "bfloat16"},
    "bfloat16, remat": {"network.dtype": "bfloat16", "network.remat": True},
}
DEVICES = (16, 40, 80)  # GB of 1e9 bytes
USABLE = 0.9  # share of a device's memory that a step may take; the rest is for the runtime, a save's copy and fragmentation


def config_256(variant: str) -> ml_collections.ConfigDict:
    """Returns the config of `configs/lsun_bedroom.py` for 256x256, by the settings in its docstring."""
    config = lsun_bedroom.get_config(variant)
    config.data.size = 256
    config.network.update({"channel_mults": (1, 1, 2, 2, 4, 4), "res_blocks": 2, "heads": 1, "scale_shift": False})
    config.network.attention_resolutions = (16,)
    return config


def fitting(fixed: float, each: float, memory: float) -> int:
    """Returns how many examples fit `memory` bytes, if a step takes `fixed + examples * each`."""
    return max(0, int((USABLE * memory - fixed) // each))


def memory_table(get_config=config_256, shape=(256, 256, 3), variants=("ddpm", "robust_adv"), settings=SETTINGS) -> dict:
    """Estimates the memory of a training step on one device.

    Args:
        get_config: variant -> config.
        shape: of one image.
        variants: of the config.
        settings: name -> overrides of the config.

    Returns:
        "VARIANT, NAME" -> `state_gb` (parameters, optimiser, average), `fixed_gb` and `image_gb` of a step; `batch_in_N_gb`:
        the largest batch or micro-batch of a device of N GB, 0 if none fits.
    """
    table = {}
    for variant in variants:
        for name, overrides in settings.items():
            one, two = (_figures(get_config, variant, overrides, shape, count) for count in (1, 2))
            total = [figures.state_bytes + figures.temp_bytes for figures in (one, two)]
            each = total[1] - total[0]
            row = {"state_gb": one.state_bytes / 1e9, "fixed_gb": (total[0] - each) / 1e9, "image_gb": each / 1e9}
            row |= {f"batch_in_{memory}_gb": fitting(total[0] - each, each, 1e9 * memory) for memory in DEVICES}
            table[f"{variant}, {name}"] = row
            print(f"{variant}, {name}: done", file=sys.stderr)
    return table


def kept_table(get_config=config_256, shape=(256, 256, 3), settings=SETTINGS) -> dict:
    """Sums up what plain denoising keeps for the backward pass: setting -> `kept_gb`, for each image.

    Args:
        get_config: variant -> config.
        shape: of one image.
        settings: name -> overrides of the config.
    """
    table = {}
    for name, overrides in settings.items():
        one, two = (_kept_bytes(get_config, overrides, shape, count) for count in (1, 2))
        table[name] = {"kept_gb": (two - one) / 1e9}
    return table


def _kept_bytes(get_config, overrides, shape, count):
    config = get_config("ddpm")
    config.update_from_flattened_dict(overrides)
    experiment = build_experiment(resolve(config), shape)
    x, t = jax.ShapeDtypeStruct((count, *shape), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.float32)

    def pullback(params, x, t):
        return jax.vjp(lambda params: experiment.predict(params, x, t), params)[1]

    kept = jax.eval_shape(pullback, jax.eval_shape(experiment.init, jax.random.key(0)), x, t)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def _figures(get_config, variant, overrides, shape, count):
    config = get_config(variant)
    config.update_from_flattened_dict(overrides | {"train.batch_size": count})
    return step_figures(config, shape)


def main() -> None:
    """Prints the table, or with --json one line of JSON: {"memory": ...}."""
    parser = benchmarks.parser("memory", __doc__)
    parser.add_argument("--variants", nargs="+", default=("ddpm", "robust_adv"), help="which variants")
    parser.add_argument("--settings", nargs="+", default=tuple(SETTINGS), choices=tuple(SETTINGS), help="which settings")
    parser.add_argument("--kept", action="store_true", help="what the forward pass keeps for the backward pass")
    args = parser.parse_args()
    settings = {name: SETTINGS[name] for name in args.settings}
    if args.kept:
        benchmarks.show("kept", kept_table(settings=settings), args.json)
        return
    benchmarks.show("memory", memory_table(variants=args.variants, settings=settings), args.json)


if __name__ == "__main__":
    main()
