"""Config -> everything that a run trains and draws with: network, process, objective, optimiser, sampler."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from advdiff_jax.builders.draw import build_draw
from advdiff_jax.builders.given_mask import build_given_mask
from advdiff_jax.builders.noise_file import followed_floor
from advdiff_jax.builders.objectives import build_denoising, build_objective, build_variance_loss, objective_spec
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import Choice, as_user_error, build
from advdiff_jax.builders.steps import build_step_schedule, measured_steps, weight_ramp
from advdiff_jax.diffusion.model import Model
from advdiff_jax.errors import UserError
from advdiff_jax.networks import unet
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.training import noise_floor, parallel, state
from advdiff_jax.training.step import make_train_step
from advdiff_jax.training.step_schedule import StepSchedule

DTYPES = {"float32": Choice(lambda c: jnp.float32), "bfloat16": Choice(lambda c: jnp.bfloat16)}

# network.KEY -> the argument of `UNet` with this name.
_UNET = (
    "base_channels",
    "channel_mults",
    "res_blocks",
    "attention_resolutions",
    "heads",
    "dropout",
    "scale_shift",
    "remat",
    "down_block_types",
    "up_block_types",
    "downsample_type",
    "upsample_type",
    "downsample_padding",
    "attention_head_dim",
    "add_attention",
    "norm_num_groups",
    "attn_norm_num_groups",
    "norm_eps",
    "flip_sin_to_cos",
    "freq_shift",
    "center_input_sample",
)

DOWN_BLOCKS = {name: Choice(lambda c, value=name: value) for name in unet.DOWN_BLOCKS}
UP_BLOCKS = {name: Choice(lambda c, value=name: value) for name in unet.UP_BLOCKS}
RESAMPLING = {name: Choice(lambda c, value=name: value) for name in unet.RESAMPLING}


def _unnamed(c, dtype, outputs, given):
    raise UserError("config.network.kind='pretrained' is resolved from config.init_from: set that, or kind to mlp or unet")


NETWORKS = {
    "mlp": Choice(
        lambda c, dtype, outputs, given: MLP(c.width, c.depth, c.time_features, c.time_scale, dtype, outputs),
        reads=("network.width", "network.depth", "network.time_features"),
    ),
    "unet": Choice(
        lambda c, dtype, outputs, given: unet.UNet(
            **{key: c[key] for key in _UNET}, time_scale=c.time_scale, dtype=dtype, outputs=outputs, given=given
        ),
        reads=tuple(f"network.{key}" for key in _UNET),
    ),
    "pretrained": Choice(_unnamed, reads=("network.dropout",)),
}

LEARNING_RATES = {
    # optax's warm-up of 0 steps stays at its initial value, 0, for ever
    "constant": Choice(
        lambda c: optax.schedules.warmup_constant_schedule(
            0.0 if c.warmup_steps else c.learning_rate, c.learning_rate, c.warmup_steps
        )
    ),
    "cosine": Choice(lambda c: optax.schedules.warmup_cosine_decay_schedule(0.0, c.learning_rate, c.warmup_steps, c.steps)),
}


class Experiment(NamedTuple):
    """What a config describes, as functions.

    Attributes:
        init: key -> initial parameters.
        step_schedule: how many steps, and which of them have the penalty.
        steps: has the penalty -> the pure step, for `parallel.parallel_train_step`.
        optimizer: the one of the steps.
        sampler: (replicated params, key, n) -> rounds of samples [b, ...], see `parallel.parallel_sampler`.
        predict: (params, x_t, t) -> the network's prediction there.
        model: params -> what metrics and figures of the model take.
    """

    init: Callable[[jax.Array], Any]
    step_schedule: StepSchedule
    steps: dict[bool, Callable]
    optimizer: optax.GradientTransformation
    sampler: Callable[[Any, jax.Array, int], np.ndarray]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]
    model: Callable[[Any], Model]


def build_network(config: ml_collections.ConfigDict) -> nn.Module:
    """Builds the score network, without parameters."""
    outputs, given = 2 if config.diffusion.learn_variance else 1, int(objective_spec(config).gives_mask)
    return build(NETWORKS, config, "network.kind", build(DTYPES, config, "network.dtype"), outputs, given)


def build_optimizer(config: ml_collections.ConfigDict, clip_scale: int = 1) -> optax.GradientTransformation:
    """Builds Adam under a bound on the global gradient norm, none for 0; the learning rate follows steps, not updates.

    Args:
        config: reads `train`, and the updates a step of the objective.
        clip_scale: factor on the bound, for a step with a penalty of that scale.
    """
    of_step, updates = build(LEARNING_RATES, config, "train.decay"), objective_spec(config).updates(config)
    learning_rate = of_step if updates == 1 else lambda count: of_step(count // updates)
    bound = clip_scale * config.train.clip_norm
    return optax.chain(
        optax.clip_by_global_norm(bound) if bound else optax.identity(),
        optax.adam(learning_rate, b1=config.train.beta1, b2=config.train.beta2),
    )


def _build_steps(config, apply, evaluate_network, process, step_schedule):
    variance_loss, explained = build_variance_loss(config, process), config.robust.explained

    def objective_at(state):
        noise = followed_floor(config, noise_floor.estimate_noise_floor(state.noise_floor, explained))
        return build_objective(config, process, variance_loss, noise, weight_ramp(config, state.step))

    measured = measured_steps(config, step_schedule)
    objective_at(state.create({}, optax.identity()))  # refuses a bad value now
    shared = {
        "apply": apply,
        "schedule": process.schedule,
        "ema_decay": config.train.ema_decay,
        "more_ema_decays": config.train.more_ema_decays,
        "average": parallel.average,
        "ema_ramp": not config.init_from or bool(objective_spec(config).em),  # an average over laps would lag behind them
    }
    plain = make_train_step(
        objective_at=lambda state: build_denoising(config, process, variance_loss, state.step < measured),
        optimizer=build_optimizer(config),
        measure_until=measured,
        evaluate=evaluate_network if config.network.dropout else None,
        **shared,
    )
    with as_user_error(f"config.objective={config.objective}"):
        optimizer = build_optimizer(config, clip_scale=step_schedule.interval)
        penalised = objective_spec(config).make_step(
            config, objective_at=objective_at, optimizer=optimizer, measure_until=0, **shared
        )
    return {False: plain, True: penalised}


def sampling_params(config: ml_collections.ConfigDict, run: state.TrainState) -> Any:
    """Returns the average of the parameters that draws the samples: the one with the decay `sampling.ema_decay`."""
    more = dict(zip(config.train.more_ema_decays, run.more_ema, strict=True))
    return more.get(config.sampling.ema_decay, run.ema_params)


def build_experiment(config: ml_collections.ConfigDict, shape: tuple[int, ...], masks: np.ndarray | None = None) -> Experiment:
    """Composes network, process, objective, optimiser and sampler.

    Args:
        config: a resolved config, see `validate.resolve`.
        shape: shape of one example.
        masks: [n, H, W, 1] bool, for a network that is given a mask: each sample draws one and masks it further; metrics of the
            model use the first draw. None: every pixel is seen.

    Raises:
        UserError: an unknown name or a bad value.
    """
    process, network = build_process(config), build_network(config)
    draw, given = build_draw(config, process, shape), build_given_mask(config, process, shape, masks)

    def init(key):
        return network.init(key, jnp.zeros((1, *shape[:-1], shape[-1] + given.channels)), jnp.zeros((1,)))["params"]

    def evaluate_network(params, x, t):
        return network.apply({"params": params}, *given.inputs(x, t))

    def apply_train(params, x, t, dropout_keys):
        if not config.network.dropout:
            return evaluate_network(params, x, t)

        def one(x, t, key):  # an example's mask comes from its own key, whatever batch or device it is in
            return network.apply({"params": params}, x[None], t[None], train=True, rngs={"dropout": key})[0]

        return jax.vmap(one)(*given.inputs(x, t), dropout_keys)

    def predict(params, x, t):
        return given.fixed(functools.partial(evaluate_network, params))(x, t)

    def model(params):
        return Model(process.schedule, process.denoiser(functools.partial(predict, params)))

    step_schedule = build_step_schedule(config, config.train.steps)
    steps = _build_steps(config, apply_train, evaluate_network, process, step_schedule)
    with as_user_error(f"config.network.kind={config.network.kind} on examples of shape {shape}"):
        jax.eval_shape(init, jax.random.key(0))  # refuses a shape that the network does not take
    sampler = parallel.parallel_sampler(
        lambda params, keys: draw(given.of_samples(functools.partial(evaluate_network, params), keys), keys),
        config.sampling.batch_size,
    )
    return Experiment(init, step_schedule, steps, build_optimizer(config), sampler, predict, model)
