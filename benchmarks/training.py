"""Measures the cost of every variant's training step: python -m benchmarks.training [--config digits] [--json].

FLOPs and temporary memory are the compiler's own figures for the compiled step; seconds are wall clock. Ratios are to
`ddpm`, measured in the same process: timings are taken in rounds, one variant after the other, so that a machine whose
speed drifts slows all of them alike.

With --peer the step is timed against diffusers in torch instead (`benchmarks.peer`).
"""

import importlib
import itertools
import statistics
import sys
import time
from collections.abc import Sequence

import jax

import benchmarks
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.masks import has_mask
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.teaching import build_teaching
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from benchmarks import peer


class _Step:
    """A variant's compiled steps, with a state and a batch to run them on; costs are means over the steps of its run."""

    def __init__(self, config):
        config = resolve(config)
        data = build_data(config)
        teaching = build_teaching(config, data)
        experiment = build_experiment(config, data.train.shape[1:])
        self._state = parallel.replicate(
            state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer),
        )
        self._key = jax.random.key(1)
        batch = BatchSource(data.train, config.train.batch_size, seed=0, **teaching.of_batches())[0]
        self._batch = next(parallel.shard(itertools.repeat(batch)))
        arguments = self._state, self._key, self._batch
        compiled = parallel.compile_steps(
            experiment.step_schedule.shares(), experiment.steps, *arguments, micro_batches=config.train.accumulate
        )
        self.flops, self._parts = parallel.mean_flops(compiled), list(compiled.values())
        per_device = max(one.executable.memory_analysis().temp_size_in_bytes for one in self._parts)
        self.temp_bytes = per_device * jax.device_count()

    def seconds(self, count: int) -> float:
        """Returns the mean seconds of a step over `count` steps of each kind."""
        return sum(one.share * self._time(one.step, count) for one in self._parts)

    def _time(self, step, count):
        jax.block_until_ready(self._state)
        started = time.perf_counter()
        for _ in range(count):
            self._state, _ = step(self._state, self._key, self._batch)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - started) / count


def _is_trainable(config):
    return has_mask(config) or not objective_spec(config).needs_mask(config)


def variants_table(
    name: str = "digits", rounds: int = 5, steps: int = 10, variants: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Measures the cost of a training step of every variant.

    Args:
        name: a file of `configs/` without its ending.
        rounds: rounds of timing; medians over them are reported.
        steps: steps of a variant in a round.
        variants: which, besides `ddpm`; if none are named, all but those that need masks and have none in this config.

    Returns:
        variant -> `flops` (all devices), `flops_ratio`, `temp_bytes_ratio`, `seconds` (median of a step),
        `seconds_ratio` (median of the rounds' ratios).
    """
    get_config = importlib.import_module(f"configs.{name}").get_config
    known = importlib.import_module("configs.variants").VARIANTS
    trainable = (variant for variant in known if _is_trainable(get_config(variant)))
    measured = {variant: _Step(get_config(variant)) for variant in dict.fromkeys(("ddpm", *(variants or trainable)))}
    for step in measured.values():
        step.seconds(2)  # warms the caches
    timings = [{variant: step.seconds(steps) for variant, step in measured.items()} for _ in range(rounds)]
    base = measured["ddpm"]
    return {
        variant: {
            "flops": step.flops,
            "flops_ratio": step.flops / base.flops,
            "temp_bytes_ratio": step.temp_bytes / base.temp_bytes,
            "seconds": statistics.median(timing[variant] for timing in timings),
            "seconds_ratio": statistics.median(timing[variant] / timing["ddpm"] for timing in timings),
        }
        for variant, step in measured.items()
    }


def main() -> None:
    """Prints the table, or with --json one line of JSON: {"variants": ...}."""
    parser = benchmarks.parser("training", __doc__)
    parser.add_argument("--config", default="digits", help="a file of configs/, without its ending")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing")
    parser.add_argument("--steps", type=int, default=10, help="steps of a variant in a round")
    parser.add_argument("--variants", nargs="+", default=(), help="which variants, besides ddpm; all by default")
    parser.add_argument("--peer", action="store_true", help="instead: our step and its operations against diffusers in torch")
    parser.add_argument("--rows", nargs="+", default=("",), help="--peer: rows that start with one of these; all by default")
    args = parser.parse_args()
    if args.peer:
        try:
            benchmarks.show("peer", peer.compare(args.rounds, chosen=args.rows), args.json)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        return
    benchmarks.show("variants", variants_table(args.config, args.rounds, args.steps, args.variants), args.json)


if __name__ == "__main__":
    main()
