"""What a training step, the data pipeline and the samplers cost, and what measures see: python -m benchmarks.training.

The others are benchmarks.scaling, benchmarks.memory, benchmarks.loops, benchmarks.data, benchmarks.sampling,
benchmarks.measures and benchmarks.noise. Run them from the project's root, where `configs/` is.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Builds the parser of `python -m benchmarks.NAME`, with --json, from the first line of its docstring."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    found.add_argument("--json", action="store_true", help="print JSON")
    return found


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Returns the seconds of a call: wall clock, and processor time of all threads, which other programs hardly disturb.

    It is the second of two calls: the first after a wait finds that the system has taken its memory away.
    """
    call()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def show(name: str, table: dict[str, Any], as_json: bool) -> None:
    """Prints name -> number, or row -> column -> number; with `as_json` one line of JSON: {name: table}."""
    if as_json:
        print(json.dumps({name: table}))
        return
    first = next(iter(table.values()))
    if not isinstance(first, dict):
        for key, value in table.items():
            print(f"{key:44}{value:14.5g}")
        return
    print(f"{'':36}" + "".join(f"{column:>22}" for column in first))
    for key, row in table.items():
        print(f"{key:36}" + "".join(f"{value:22.4g}" for value in row.values()))
