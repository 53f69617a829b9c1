"""Config -> objects. Every choice that a config can name is one line of a dictionary here."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from advdiff_jax.builders_objectives import budgeted, build_denoising, build_objective, check_keys, entry, plan
from advdiff_jax.builders_process import build_prediction, build_sampler, build_schedule, build_variance_loss
from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation.fields import Model
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.networks.unet import UNet
from advdiff_jax.sampling.sample import prior
from advdiff_jax.training import levels, parallel
from advdiff_jax.training.plan import Plan
from advdiff_jax.training.step import make_train_step

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

NETWORKS = {
    "mlp": lambda c, dtype, outputs: MLP(c.width, c.depth, c.time_features, c.time_scale, dtype, outputs),
    "unet": lambda c, dtype, outputs: UNet(
        c.base_channels,
        tuple(c.channel_mults),
        c.res_blocks,
        tuple(c.attention_resolutions),
        c.heads,
        c.dropout,
        c.scale_shift,
        c.time_scale,
        dtype,
        outputs,
    ),
}

LEARNING_RATES = {
    "constant": lambda c: optax.schedules.warmup_constant_schedule(0.0, c.learning_rate, c.warmup_steps),
    "cosine": lambda c: optax.schedules.warmup_cosine_decay_schedule(0.0, c.learning_rate, c.warmup_steps, c.steps),
}


class Experiment(NamedTuple):
    """What a config describes, as functions.

    Attributes:
        init: key -> initial parameters.
        plan: pure steps for `parallel.parallel_train_step`, and which is done when.
        optimizer: what they were built with.
        sampler: (replicated params, key, n) -> n samples [n, ...], spread over all devices.
        predict: (params, x_t, t) -> the network's prediction there.
        model: params -> what the evaluation looks at besides samples.
    """

    init: Callable[[jax.Array], Any]
    plan: Plan
    optimizer: optax.GradientTransformation
    sampler: Callable[[Any, jax.Array, int], np.ndarray]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]
    model: Callable[[Any], Model]


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what no single factory can see.

    Raises:
        UserError: a value out of range, or a batch that cannot be spread over the devices.
    """
    devices = jax.device_count()
    if config.train.batch_size % devices:
        raise UserError(
            f"config.train.batch_size={config.train.batch_size} is not divisible by the {devices} devices: "
            f"try {config.train.batch_size // devices * devices or devices}"
        )
    for section, key in [
        ("train", "steps"),
        ("train", "batch_size"),
        ("train", "log_every"),
        ("train", "checkpoint_every"),
        ("train", "keep_checkpoints"),
        ("neighbours", "updates"),
        ("sampling", "batch_size"),
        ("evaluation", "num_samples"),
        ("evaluation", "w2_points"),
        ("evaluation", "grid"),
    ]:
        if config[section][key] < 1:
            raise UserError(f"config.{section}.{key}={config[section][key]} must be at least 1")
    if config.evaluation.max_reference < 4:
        raise UserError(f"config.evaluation.max_reference={config.evaluation.max_reference} must be at least 4")
    local = config.train.batch_size // devices
    if config.robust.one_in < 1 or local % config.robust.one_in:
        raise UserError(
            f"config.robust.one_in={config.robust.one_in} must divide the batch of a device, which is {local} "
            f"(config.train.batch_size={config.train.batch_size} on {devices} devices): try "
            f"{max(m for m in range(1, max(2, config.robust.one_in + 1)) if local % m == 0)}"
        )
    check_keys(config)
    if config.train.decay == "cosine" and config.train.warmup_steps >= config.train.steps:
        paid = ", what config.train.budget_evaluations pays for" if config.train.budget_evaluations else ""
        raise UserError(
            f"config.train.warmup_steps={config.train.warmup_steps} must be smaller than "
            f"config.train.steps={config.train.steps}{paid}"
        )


def build_network(config: ml_collections.ConfigDict) -> nn.Module:
    """The score network, without parameters."""
    return choose(
        NETWORKS, config, "network.kind", pick(DTYPES, config, "network.dtype"), 2 if config.diffusion.learn_variance else 1
    )


def build_optimizer(config: ml_collections.ConfigDict, lazy: int = 1) -> optax.GradientTransformation:
    """Adam under a bound on the global gradient norm; the learning rate follows `train.steps`, however many updates one has.

    The bound is `lazy` times as large in a step whose second term is so many times as heavy.
    """
    of_step, updates = choose(LEARNING_RATES, config, "train.decay"), entry(config).updates(config)
    learning_rate = of_step if updates == 1 else lambda count: of_step(count // updates)
    return optax.chain(
        optax.clip_by_global_norm(lazy * config.train.clip_norm),
        optax.adam(learning_rate, b1=config.train.beta1, b2=config.train.beta2),
    )


def _plan(config, apply, process):
    c = config.robust
    when = plan(config, config.train.steps)
    start = when.start
    if start >= config.train.steps and config.objective != "denoising":
        raise UserError(
            f"config.robust.start_step={c.start_step:g} leaves no step of {config.train.steps} for "
            f"config.objective={config.objective!r}: lower it"
        )
    if c.weight == "adaptive" and config.objective != "denoising" and not (start or config.init_from):
        raise UserError(
            "config.robust.weight='adaptive' follows what plain steps measure: set config.robust.start_step above 0, or "
            "config.init_from to a finished run"
        )

    def objective_at(seen):
        return build_objective(config, process, levels.crossing(seen, c.explained))

    objective_at(levels.create())  # a value that cannot be is refused here

    def arguments(objective, lazy, measure_until):
        optimizer, decay = build_optimizer(config, lazy), config.train.ema_decay
        return apply, objective, process[0], optimizer, decay, parallel.average, measure_until

    plain = make_train_step(*arguments(lambda seen: build_denoising(config, process), 1, start))
    with refused(f"config.objective={config.objective}"):
        full = entry(config).step(config, *arguments(objective_at, c.every, 0))
    return dataclasses.replace(when, plain=plain, full=full)


def build(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> Experiment:
    """Composes network, process, objective, optimiser and sampler.

    Args:
        config: a config of `configs/`.
        shape: shape of one example.

    Raises:
        UserError: an unknown name or a value that cannot be.
    """
    config = budgeted(config)
    check(config)
    schedule = build_schedule(config)
    prediction = build_prediction(config, schedule)
    network = build_network(config)
    variance_loss = build_variance_loss(config, schedule, prediction.parameterization)
    solve = build_sampler(config, schedule)

    def init(key):
        return network.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)))["params"]

    def evaluate_network(params, x, t):
        return network.apply({"params": params}, *prediction.inputs(x, t))

    def apply_train(params, x, t, dropout_keys):
        if not config.network.dropout:
            return evaluate_network(params, x, t)

        def one(x, t, key):  # an example's mask comes from its own key, whatever batch or device it is in
            return network.apply({"params": params}, x[None], t[None], train=True, rngs={"dropout": key})[0]

        return jax.vmap(one)(*prediction.inputs(x, t), dropout_keys)

    def model(params):
        return Model(schedule, prediction.denoiser(functools.partial(evaluate_network, params)))

    def draw(params, keys):
        predict = functools.partial(evaluate_network, params)
        denoise = prediction.denoiser(predict, clip=config.sampling.clip or None)
        start_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return solve(denoise, step_keys, prior(start_keys, shape, schedule.prior_std))

    steps = _plan(config, apply_train, (schedule, prediction.parameterization, variance_loss))
    with refused(f"config.network.kind={config.network.kind} on examples of shape {shape}"):
        jax.eval_shape(init, jax.random.key(0))  # a shape that the network cannot take is refused here
    sampler = parallel.parallel_sampler(draw, config.sampling.batch_size)
    return Experiment(init, steps, build_optimizer(config), sampler, evaluate_network, model)
