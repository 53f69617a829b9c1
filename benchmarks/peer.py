"""Compares our training step, and its operations, with diffusers in torch on the same processors, for `benchmarks.training`.

The network is the DDPM network for CIFAR-10 (Ho et al. 2020; google/ddpm-cifar10-32). Torch runs in the environment of
`make .venv-crosscheck/installed`, as a process that waits while ours computes, and the other way round.
"""

import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

import benchmarks
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.networks.layers import Norms, SelfAttention, conv3x3, group_norm
from advdiff_jax.training import parallel, state
from advdiff_jax.training.step import make_update
from configs import cifar10

ROOT = pathlib.Path(__file__).parents[1]
PYTHON = ROOT / ".venv-crosscheck/bin/python"
PUBLISHED = {
    "size": 32,
    "channels": 3,
    "base_channels": 128,
    "channel_mults": (1, 2, 2, 2),
    "res_blocks": 2,
    "attention_resolutions": (16,),
}
BATCH = 8
GRADIENTS = ("forward", "input gradient", "kernel gradient")


class Torch:
    """The other process; `ask(name, *arguments)` returns what `benchmarks.peer_torch` answers.

    Raises:
        UserError: the environment is missing, or the process has ended.
    """

    def __init__(self):
        if not PYTHON.exists():
            raise UserError("--peer needs torch and diffusers: run make .venv-crosscheck/installed")
        command = [str(PYTHON), "-m", "tests.crosscheck.without_kernels", "benchmarks.peer_torch"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *request) -> Any:
        """Sends a request and waits for its answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not (answer := self._process.stdout.readline()):
            raise UserError(f"--peer: {PYTHON} ended with status {self._process.wait()} at {request[0]}; see its output")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def config_of(variant: str, batch: int, network: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config of a run with a DDPM network of these sizes."""
    config = cifar10.get_config(variant)
    config.network.update({name: value for name, value in network.items() if name not in ("size", "channels")})
    config.network.update({"heads": 1, "scale_shift": False, "dropout": 0.0})
    config.diffusion.schedule = "vp_linear"
    config.data.size = network["size"]
    config.train.batch_size = batch
    return resolve(config)


def _experiment(variant, batch, network):
    shape = (network["size"], network["size"], network["channels"])
    experiment = build_experiment(config_of(variant, batch, network), shape)
    return experiment, jax.jit(experiment.init)(jax.random.key(0)), shape


def step(variant: str, batch: int, network: dict[str, Any]) -> Callable[[], None]:
    """Builds a training step of `ddpm` or `robust_adv` on one device, on images of a constant grey."""
    experiment, params, shape = _experiment(variant, batch, network)
    run = jax.tree.map(lambda x: x[None], state.create(params, experiment.optimizer))
    kind = max(experiment.step_schedule.shares())
    mapped = parallel.parallel_train_step(experiment.steps[kind], devices=jax.devices()[:1])
    feed = {"examples": jnp.zeros((1, batch, *shape), jnp.uint8)}

    def call():
        nonlocal run
        run, _ = mapped(run, jax.random.key(1), feed)
        jax.block_until_ready(run)

    return call


def network(what: str, batch: int, network: dict[str, Any]) -> Callable[[], None]:
    """Builds the network's forward pass, or a forward pass with the gradient for its input or for its parameters."""
    experiment, params, shape = _experiment("ddpm", batch, network)
    x, t = jax.random.normal(jax.random.key(1), (batch, *shape)), jnp.full(batch, 0.5)

    def loss(params, x):
        return jnp.sum(experiment.predict(params, x, t) ** 2)

    function = {
        "forward": lambda params, x: experiment.predict(params, x, t),
        "input gradient": jax.grad(loss, argnums=1),
        "parameter gradient": jax.grad(loss),
    }[what]
    return _blocking(function, params, x)


def convolution(what: str, batch: int, size: int, inputs: int, outputs: int) -> Callable[[], None]:
    """Builds a 3x3 convolution or one of its two gradients."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, out = (jax.random.normal(keys[i], (batch, size, size, width)) for i, width in enumerate((inputs, outputs)))
    kernel = jax.random.normal(keys[2], (3, 3, inputs, outputs))
    module = conv3x3(outputs, jnp.float32)

    def apply(x, kernel):
        return module.apply({"params": {"kernel": kernel, "bias": jnp.zeros(outputs)}}, x)

    function = {
        "forward": lambda x, kernel, out: apply(x, kernel),
        "input gradient": lambda x, kernel, out: jax.vjp(lambda x: apply(x, kernel), x)[1](out),
        "kernel gradient": lambda x, kernel, out: jax.vjp(lambda kernel: apply(x, kernel), kernel)[1](out),
    }[what]
    return _blocking(function, x, kernel, out)


def layer(what: str, batch: int, size: int, channels: int) -> Callable[[], None]:
    """Builds a forward pass and all gradients of silu, of GroupNorm with silu, or of self-attention with its norm."""
    x, out = jax.random.normal(jax.random.key(0), (2, batch, size, size, channels))
    if what == "silu":
        return _blocking(lambda x, out: jax.vjp(jax.nn.silu, x)[1](out), x, out)
    module = {"norm and silu": NormSilu, "attention": lambda: SelfAttention(1, jnp.float32)}[what]()
    params = module.init(jax.random.key(1), x)
    return _blocking(lambda params, x, out: jax.vjp(module.apply, params, x)[1](out), params, x, out)


def update(network: dict[str, Any]) -> Callable[[], None]:
    """Builds the update of all parameters: bound on the gradient norm, Adam, average."""
    experiment, params, _ = _experiment("ddpm", BATCH, network)
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 1e-3), params)
    run = state.create(params, experiment.optimizer)
    compiled = jax.jit(make_update(experiment.optimizer, 0.9999), donate_argnums=0)

    def call():
        nonlocal run
        run, _ = compiled(run, gradients)
        jax.block_until_ready(run)

    return call


class NormSilu(nn.Module):
    """GroupNorm and silu, as in `networks.layers.ResBlock`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.silu(group_norm(x, Norms(), jnp.float32, "norm"))


def _blocking(function, *arguments):
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


OPERATIONS = {one.__name__: one for one in (step, network, convolution, layer, update)}


def requests(batch: int = BATCH, network: dict[str, Any] = PUBLISHED) -> dict[str, tuple]:
    """Returns row -> request: the two steps, and the operations of which they consist, in the network's own shapes.

    Each convolution appears at the width that most of its level has.
    """
    size, base = network["size"], network["base_channels"]
    named = {f"step, {variant}": ("step", variant, batch, network) for variant in ("ddpm", "robust_adv")}
    for what in ("forward", "input gradient", "parameter gradient"):
        named[f"network, {what}"] = ("network", what, batch, network)
    for level, mult in enumerate(network["channel_mults"]):
        side, width = size // 2**level, mult * base
        for what in GRADIENTS:
            named[f"conv {side}x{side}x{width}, {what}"] = ("convolution", what, batch, side, width, width)
    named[f"silu {size}x{size}x{base}"] = ("layer", "silu", batch, size, base)
    named[f"norm and silu {size}x{size}x{base}"] = ("layer", "norm and silu", batch, size, base)
    for side in network["attention_resolutions"]:
        width = network["channel_mults"][(size // side).bit_length() - 1] * base
        named[f"attention {side}x{side}x{width}"] = ("layer", "attention", batch, side, width)
    return named | {"update": ("update", network)}


def peer_table(rounds: int, rows: dict[str, tuple], torch: Torch) -> dict[str, dict[str, float]]:
    """Times each request on both sides in turn, `rounds` times; compilation is not counted.

    Returns:
        row -> `seconds`, `torch_seconds` and their `ratio`, smallest of the rounds by the wall clock; `cpu_ratio`, the same of
        processor time, which other programs disturb less. With several threads it counts their waiting.
    """
    table = {}
    for row, request in rows.items():
        call = OPERATIONS[request[0]](*request[1:])
        call()  # compiles
        torch.ask(*request)
        pairs = [(benchmarks.timed(call), torch.ask(*request)) for _ in range(rounds)]
        (wall, cpu), (torch_wall, torch_cpu) = (tuple(map(min, zip(*side, strict=True))) for side in zip(*pairs, strict=True))
        table[row] = {"seconds": wall, "torch_seconds": torch_wall, "ratio": wall / torch_wall, "cpu_ratio": cpu / torch_cpu}
        print(f"{row}: {table[row]}", file=sys.stderr)
    return table


def parameters(network: dict[str, Any] = PUBLISHED) -> int:
    """Returns the number of parameters of our network."""
    shape = (network["size"], network["size"], network["channels"])
    params = jax.eval_shape(build_experiment(config_of("ddpm", BATCH, network), shape).init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def compare(rounds: int, network: dict[str, Any] = PUBLISHED, batch: int = BATCH, chosen: Sequence[str] = ("",)) -> dict:
    """Returns the table of `peer_table` for the rows that start with one of `chosen`.

    Raises:
        UserError: as `Torch`, or the networks of both sides differ in their number of parameters.
    """
    torch = Torch()
    try:
        ours, theirs = parameters(network), torch.ask("parameters", network)
        if ours != theirs:
            raise UserError(f"--peer: our network has {ours} parameters, that of diffusers {theirs}")
        rows = {row: request for row, request in requests(batch, network).items() if row.startswith(tuple(chosen))}
        return peer_table(rounds, rows, torch)
    finally:
        torch.close()
