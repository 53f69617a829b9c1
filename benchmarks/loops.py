"""Measures a convolution's gradients in a loop over those outside of one: python -m benchmarks.loops [--json].

`ours` is the convolution of the networks (`advdiff_jax.networks.convolution`), `lax` JAX's own. If `lax` shows ratios near 1 on
every device that is used, that module has done its work and can go.
"""

import collections
import functools

import jax
import jax.numpy as jnp

import benchmarks
from advdiff_jax.networks.convolution import conv_general_dilated

CONVOLUTIONS = {"ours": conv_general_dilated, "lax": jax.lax.conv_general_dilated}


def loops_table(
    batch: int = 64, side: int = 28, channels: int = 16, rounds: int = 3, length: int = 5
) -> dict[str, dict[str, float]]:
    """Measures one 3x3 convolution in float32: milliseconds outside of a loop, and the ratio in a loop to that.

    Args:
        batch: images.
        side: their height and width.
        channels: of images and results.
        rounds: timed calls, of which the fastest counts.
        length: rounds of the loop in a call.

    Returns:
        forward, input gradient, kernel gradient -> `WHOSE_ms` and `WHOSE_in_a_loop`, for whose in `CONVOLUTIONS`.
    """
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
    table = collections.defaultdict(dict)
    for whose, convolution in CONVOLUTIONS.items():
        for name, operation in _operations(convolution).items():
            once = _seconds(operation, (x, kernel), rounds)
            looped = _seconds(functools.partial(_loop, operation, length), (x, kernel), rounds) / length
            table[name] |= {f"{whose}_ms": 1000 * once, f"{whose}_in_a_loop": looped / once}
    return dict(table)


def _operations(convolution):
    def forward(x, kernel):
        return convolution(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return {
        "forward": forward,
        "input gradient": lambda x, kernel: jax.vjp(lambda x: forward(x, kernel), x)[1](x)[0],
        "kernel gradient": lambda x, kernel: jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](x)[0],
    }


def _loop(operation, length, x, kernel):
    # The next round needs the result of this one, so that nothing moves out of the loop.
    return jax.lax.scan(lambda x, _: (x + 1e-6 * jnp.mean(operation(x, kernel)), None), x, length=length)[0]


def _seconds(function, args, rounds):
    compiled = jax.jit(function)
    return min(benchmarks.timed(lambda: jax.block_until_ready(compiled(*args)))[0] for _ in range(rounds))


def main() -> None:
    """Prints the table, or with --json one line of JSON: {"loops": ...}."""
    args = benchmarks.parser("loops", __doc__).parse_args()
    benchmarks.show("loops", loops_table(), args.json)


if __name__ == "__main__":
    main()
