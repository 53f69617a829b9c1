"""Measures a training step as the compiler sees it, and its dispatch: python -m benchmarks.scaling [--config digits] [--json].

Each step is compiled from shapes alone. FLOPs, memory and collectives are the compiler's own figures for one device; its
seconds of compilation and the microseconds of dispatch are wall clock, the smallest of several.
"""

import functools
import importlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

if __name__ == "__main__":  # before jax starts: fake devices, each with a thread, or queued collectives would deadlock
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    os.environ["NPROC"] = "8"

import jax
import jax.numpy as jnp
import ml_collections

import benchmarks
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.training import parallel, state

COLLECTIVES = r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("


class StepFigures(NamedTuple):
    """A compiled training step, on each of its devices.

    Attributes:
        flops: floating-point operations; micro-batches count in full.
        state_bytes: of the state and the batch.
        temp_bytes: of all else at the peak, activations and gradients above all.
        collectives: operations between devices.
        seconds: of compilation.
    """

    flops: float
    state_bytes: int
    temp_bytes: int
    collectives: int
    seconds: float


def step_figures(
    config: ml_collections.ConfigDict, shape: tuple[int, ...], devices: Sequence[jax.Device] | None = None
) -> StepFigures:
    """Compiles the step with which a run of a config ends, allocating nothing.

    Args:
        config: read as by `resolve`; the batch is spread over `devices`.
        shape: of one example, uint8 if it is an image.
        devices: the first alone by default.
    """
    config, devices = resolve(config), devices or jax.devices()[:1]
    experiment, count = build_experiment(config, shape), len(devices)
    fresh = jax.eval_shape(
        lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer, len(config.train.more_ema_decays))
    )
    run = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), fresh)
    dtype = jnp.uint8 if len(shape) == 3 else jnp.float32
    examples = jax.ShapeDtypeStruct((count, config.train.batch_size // count, *shape), dtype)
    arguments = run, jax.eval_shape(lambda: jax.random.key(0)), {"examples": examples}
    step = experiment.steps[max(experiment.step_schedule.shares())]

    def lower(parts):
        return parallel.parallel_train_step(step, parts, devices).lower(*arguments)

    lowered, started = lower(config.train.accumulate), time.perf_counter()
    executable = lowered.compile()
    seconds, memory = time.perf_counter() - started, executable.memory_analysis()
    counted = executable if config.train.accumulate == 1 else lower(1)
    return StepFigures(
        counted.cost_analysis()["flops"],
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        len(re.findall(COLLECTIVES, executable.as_text())),
        seconds,
    )


def devices_table(config: ml_collections.ConfigDict, shape: tuple[int, ...], counts: Iterable[int] = (1, 2, 4, 8)) -> dict:
    """Returns "N devices" -> the figures of a device, for one batch spread over N devices."""
    return {f"{count} devices": step_figures(config, shape, jax.devices()[:count])._asdict() for count in counts}


def sizes_table(get_config: Callable[[], ml_collections.ConfigDict], size: int, channels: int, batch_size: int = 8) -> dict:
    """Returns what is doubled (batch, resolution, width) -> the figures of a device with a batch of `batch_size` otherwise."""
    table = {}
    for name, batch, side, width in (
        ("as it is", 1, 1, 1),
        ("2 x batch", 2, 1, 1),
        ("2 x size", 1, 2, 1),
        ("2 x width", 1, 1, 2),
    ):
        config = get_config()
        config.train.batch_size = batch * batch_size * jax.device_count()
        config.network.base_channels *= width
        table[name] = step_figures(config, (side * size, side * size, channels), jax.devices())._asdict()
    return table


def dispatch_table(leaves: int = 300, calls: int = 200, rounds: int = 5) -> dict[str, float]:
    """Measures microseconds from one call of a step that does nothing to the next, mapped by `parallel` and under bare jax.jit.

    Args:
        leaves: arrays in the state; DDPM's U-Net for CIFAR-10 has some 900 with optimiser and average.
        calls: calls of a round.
        rounds: the fastest counts.
    """

    def idle(run, keys, batch, micro_batches=1):
        return run._replace(step=run.step + 1), {"loss": jnp.mean(batch["examples"])}

    first = jax.devices()[:1]
    run = state.TrainState(jnp.zeros((), jnp.int32), [jnp.zeros((8,)) for _ in range(leaves)], (), (), ())
    batch, mapped = {"examples": jnp.zeros((4, 2))}, parallel.parallel_train_step(idle, devices=first)
    cases = {
        "jit": (jax.jit(idle, donate_argnums=0), run, batch),
        "mapped": (mapped, *jax.device_put(jax.tree.map(lambda x: x[None], (run, batch)))),
    }
    found = {}
    for name, (step, current, examples) in cases.items():
        seconds, key = [], jax.random.key(0)
        for _ in range(1 + rounds):  # the first compiles
            started = time.perf_counter()
            for _ in range(calls):
                current, _ = step(current, key, examples)
            jax.block_until_ready(current)
            seconds.append((time.perf_counter() - started) / calls)
        found[f"dispatch_{name}_microseconds"] = 1e6 * min(seconds[1:])
    return found


def main() -> None:
    """Prints the three tables, or with --json a line of JSON for each: {"devices": ...}, {"sizes": ...}, {"dispatch": ...}."""
    parser = benchmarks.parser("scaling", __doc__)
    parser.add_argument(
        "--config", default="digits", help="a file of configs/ for images, without its ending; with its variant"
    )
    parser.add_argument("--size", type=int, default=8, help="height and width of its images")
    parser.add_argument("--channels", type=int, default=1, help="their channels")
    args = parser.parse_args()
    name, _, variant = args.config.partition(":")
    get_config = functools.partial(importlib.import_module(f"configs.{name}").get_config, variant or None)
    shape = (args.size, args.size, args.channels)
    benchmarks.show("devices", devices_table(get_config(), shape), args.json)
    benchmarks.show("sizes", sizes_table(get_config, args.size, args.channels), args.json)
    benchmarks.show("dispatch", dispatch_table(), args.json)


if __name__ == "__main__":
    main()
