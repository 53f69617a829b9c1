"""Config -> objects. Every choice that a config can name is one line of a dictionary here."""

import copy
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from advdiff_jax import cache
from advdiff_jax.builders_evaluation import MODEL_METRICS
from advdiff_jax.builders_process import build_prediction, build_sampler, build_schedule, build_variance_loss
from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.data import corruption, folder, photos, picture_corruptions, prepare, sources, stored, subspace, wire
from advdiff_jax.data.records import Pictures
from advdiff_jax.data.tfds_source import NotPrepared, TfdsImages
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import fidelity, ground_truth, memorization
from advdiff_jax.evaluation.features import FEATURES
from advdiff_jax.evaluation.fields import Model
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.networks.unet import UNet
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.objectives.equivariance import equivariance
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.perturbation.random import random
from advdiff_jax.sampling.sample import prior
from advdiff_jax.training import parallel
from advdiff_jax.training.step import make_train_step

SOURCES = {
    "plane3d": lambda c: sources.plane3d(c.num_examples, c.seed, c.half_width),
    "mixture": lambda c: sources.mixture(
        c.num_examples, c.seed, c.dim, c.components, c.spread, c.component_std, c.outlier_fraction
    ),
    "digits": lambda c: sources.digits(),
    "photo_crops": lambda c: sources.pictures(photos.photo_crops(c.num_examples, c.seed, c.size)),
    "folder": lambda c: sources.pictures(
        folder.picture_folder(
            c.path, c.size, c.channels, c.crop, c.on_bad_picture, pathlib.Path(c.cache_dir or cache.directory())
        )
    ),
    "array": lambda c: sources.pictures(folder.picture_array(c.path, c.size, c.channels)),
    "tfds": lambda c: sources.pictures(
        Pictures(TfdsImages(c.tfds_name, c.split, c.data_dir), c.size, c.channels, c.crop, c.on_bad_picture)
    ),
    "stored": lambda c: sources.pictures(stored.Stored(c.path)),
    "linear_subspace": lambda c: _linear_subspace(c),
}

# What `--mode=prepare` does for a source; nothing for those that are not here.
PREPARATIONS = {
    "tfds": lambda c: prepare.prepare(c.tfds_name, c.data_dir, c.manual_dir),
    "linear_subspace": lambda c: _prepare(c, c.base),
}

LAWS = {
    "projected": lambda x, plane, seed: subspace.projected(x, plane),
    "gaussian": subspace.gaussian,
}

CORRUPTIONS = {
    "gaussian": lambda c, clean: corruption.gaussian(c.noise_std),
    "gaussian_range": lambda c, clean: corruption.gaussian_range(c.noise_std_min, c.noise_std_max),
    "uniform_outlier": lambda c, clean: corruption.uniform_outlier(),
    "foreign_outlier": lambda c, clean: corruption.foreign_outlier(_foreign(c, clean)),
    "poison": lambda c, clean: corruption.poison(_poisoned(c, clean)),
    "salt_and_pepper": lambda c, clean: picture_corruptions.salt_and_pepper(c.salt_share),
    "missing_pixels": lambda c, clean: picture_corruptions.missing_pixels(c.missing_share),
    "missing_block": lambda c, clean: picture_corruptions.missing_block(c.block_side),
    "blur": lambda c, clean: picture_corruptions.blur(c.blur_std),
    "jpeg": lambda c, clean: picture_corruptions.jpeg(c.jpeg_quality),
}
PICTURES_ONLY = ("salt_and_pepper", "missing_pixels", "missing_block", "blur", "jpeg")

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

RADII = {
    "state_units": lambda c: radius.state_units(c.rho, c.bias_min, c.bias_max),
    "noise_units": lambda c: radius.noise_units(c.rho, c.bias_min, c.bias_max),
    "constant": lambda c: radius.constant(c.constant),
}

PERTURBATIONS = {
    "random": lambda c, ball: random(ball),
    "adversarial": lambda c, ball: adversarial(ball, c.attack_steps, c.step_size, c.random_start),
}

WEIGHTS = {
    "paper": lambda c: weights.paper(c.lam),
    "cutoff": lambda c: weights.cutoff(c.kappa0, c.cut, c.exponent),
}

OBJECTIVES = {
    "denoising": lambda c, *process: denoising(*process),
    "equivariance": lambda c, *process: _regularised(c, *process, blame="noise"),
    "invariance": lambda c, *process: _regularised(c, *process, blame="data"),
}

LEARNING_RATES = {
    "constant": lambda c: optax.schedules.warmup_constant_schedule(0.0, c.learning_rate, c.warmup_steps),
    "cosine": lambda c: optax.schedules.warmup_cosine_decay_schedule(0.0, c.learning_rate, c.warmup_steps, c.steps),
}


INSPECTED = 1024  # pictures of a large set that are looked at for the report


class Data(NamedTuple):
    """The clean source, and the training set as the model sees it.

    Attributes:
        source: before any corruption.
        train: the training set, [N, ...]; an array if the source is held in memory, else read and corrupted on the fly.
        inspected: indices [n] of examples for reports; all of those in memory, INSPECTED of the others.
        touched: whether each of them was chosen for corruption, [n].
    """

    source: sources.Source
    train: wire.Examples
    inspected: np.ndarray
    touched: np.ndarray


class Experiment(NamedTuple):
    """What a config describes, as functions.

    Attributes:
        init: key -> initial parameters.
        train_step: pure step for `parallel.parallel_train_step`.
        optimizer: what it was built with.
        sampler: (replicated params, key, n) -> n samples [n, ...], spread over all devices.
        predict: (params, x_t, t) -> the network's prediction there.
        model: params -> what the evaluation looks at besides samples.
    """

    init: Callable[[jax.Array], Any]
    train_step: Callable
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
        ("sampling", "batch_size"),
        ("evaluation", "num_samples"),
        ("evaluation", "grid"),
    ]:
        if config[section][key] < 1:
            raise UserError(f"config.{section}.{key}={config[section][key]} must be at least 1")
    if config.train.decay == "cosine" and config.train.warmup_steps >= config.train.steps:
        raise UserError(
            f"config.train.warmup_steps={config.train.warmup_steps} must be smaller than "
            f"config.train.steps={config.train.steps}"
        )


def build_data(config: ml_collections.ConfigDict) -> Data:
    """The data set that a config names, corrupted; raises UserError for a value that cannot be, or data that are missing."""
    try:
        source = choose(SOURCES, config, "data.source")
        chain = _corruptions(config, source.train)
    except NotPrepared as error:
        raise UserError(f"{error}; prepare it: {prepare_command(config)}") from error
    if config.data.flip and len(source.train.shape) != 4:
        raise UserError(f"config.data.flip mirrors pictures, and {config.data.source} has none")
    with refused("config.data.fraction"):
        dirty = corruption.Dirty(source.train, config.data.fraction, chain, config.data.seed)
    inspected = wire.spread_indices(len(dirty), INSPECTED if source.on_the_fly else len(dirty))
    seen = dirty.look(inspected)
    return Data(source, dirty if source.on_the_fly else seen.x, inspected, seen.touched)


def _corruptions(config, clean):
    chain = []
    for name in config.data.corruptions:
        if name not in CORRUPTIONS:
            raise UserError(f"config.data.corruptions: {name!r} is not known: choose among {', '.join(CORRUPTIONS)}")
        if name in PICTURES_ONLY and len(clean.shape) != 4:
            raise UserError(f"config.data.corruptions: {name} is for pictures, and {config.data.source} has none")
        with refused("config.data"):
            chain.append(corruption.occasionally(config.data.chance[name], CORRUPTIONS[name](config.data, clean)))
    return chain


def prepare_command(config: ml_collections.ConfigDict) -> str:
    """The command that prepares the data of a config."""
    options = [f" --config.data.data_dir={config.data.data_dir}"] if config.data.data_dir else []
    return "".join([f"python launch.py --config=configs/{config.name}.py --mode=prepare", *options])


def prepare_data(config: ml_collections.ConfigDict) -> None:
    """Downloads and prepares what `data.source` (and `data.foreign_source`, if it is used) needs; see `data.prepare`."""
    pick(SOURCES, config, "data.source")
    _prepare(config.data, config.data.source)
    if "foreign_outlier" in config.data.corruptions:
        foreign = _foreign_section(config.data)
        _prepare(foreign, foreign.source)
    build_data(config)  # reads it back: what is wrong with it is said now


def _prepare(section, name):
    if name in PREPARATIONS:
        PREPARATIONS[name](section)


def _source(section, key):
    if section[key] not in SOURCES:
        raise UserError(f"config.data.{key}={section[key]!r} is not known: choose one of {', '.join(SOURCES)}")
    return SOURCES[section[key]](section)


def _linear_subspace(c):
    if c.base == "linear_subspace" or c.subspace_law not in LAWS:
        raise UserError(
            f"config.data: need another source as base, and a subspace_law among {', '.join(LAWS)}; got {c.base!r} and "
            f"{c.subspace_law!r}"
        )
    pictures = wire.spread(_source(c, "base").train, c.num_examples)
    truth = subspace.fit_subspace(pictures, c.components)
    train, clean = LAWS[c.subspace_law](pictures, truth, c.seed)
    return sources.Source(train, clean, subspace=truth)


def _foreign_section(c):
    foreign = copy.deepcopy(c)
    foreign.source, foreign.path, foreign.tfds_name = c.foreign_source, c.foreign_path, c.foreign_tfds_name
    return foreign


def _foreign(c, clean):
    others = _source(_foreign_section(c), "source").train
    if others.shape[1:] != clean.shape[1:]:
        raise UserError(
            f"config.data.foreign_source={c.foreign_source!r} has examples of shape {list(others.shape[1:])}, and the data "
            f"set of {list(clean.shape[1:])}: outliers must have the same shape"
        )
    return others


def _poisoned(c, clean):
    if not c.poison_file:
        raise UserError("config.data.poison_file is empty: make one with --mode=poison, and name it")
    poisoned = stored.Stored(c.poison_file)
    if poisoned.about.get("made_from") != stored.fingerprint(clean):
        raise UserError(f"config.data.poison_file={c.poison_file} was made from other data: make it again from these")
    return poisoned


def _regularised(config, schedule, parameterization, variance_loss, blame):
    ball = pick(BALLS, config, "robust.ball")
    return equivariance(
        schedule,
        parameterization,
        radius=choose(RADII, config, "robust.radius"),
        perturb=choose(PERTURBATIONS, config, "robust.perturbation", ball),
        weight=choose(WEIGHTS, config, "robust.weight"),
        maximize=config.robust.maximize,
        blame=blame,
        variance_loss=variance_loss,
    )


def build_network(config: ml_collections.ConfigDict) -> nn.Module:
    """The score network, without parameters."""
    return choose(
        NETWORKS, config, "network.kind", pick(DTYPES, config, "network.dtype"), 2 if config.diffusion.learn_variance else 1
    )


def build_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam under a bound on the global gradient norm."""
    learning_rate = choose(LEARNING_RATES, config, "train.decay")
    return optax.chain(
        optax.clip_by_global_norm(config.train.clip_norm),
        optax.adam(learning_rate, b1=config.train.beta1, b2=config.train.beta2),
    )


def build(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> Experiment:
    """Composes network, process, objective, optimiser and sampler.

    Args:
        config: a config of `configs/`.
        shape: shape of one example.

    Raises:
        UserError: an unknown name or a value that cannot be.
    """
    check(config)
    schedule = build_schedule(config)
    prediction = build_prediction(config, schedule)
    network = build_network(config)
    variance_loss = build_variance_loss(config, schedule, prediction.parameterization)
    objective = choose(OBJECTIVES, config, "objective", schedule, prediction.parameterization, variance_loss)
    optimizer = build_optimizer(config)
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

    train_step = make_train_step(
        apply_train, objective, schedule.training_time, optimizer, config.train.ema_decay, parallel.average
    )
    with refused(f"config.network.kind={config.network.kind} on examples of shape {shape}"):
        jax.eval_shape(init, jax.random.key(0))  # a shape that the network cannot take is refused here
    sampler = parallel.parallel_sampler(draw, config.sampling.batch_size)
    return Experiment(init, train_step, optimizer, sampler, evaluate_network, model)


METRICS = {
    "plane": lambda config, data, samples, clean: _plane(data, samples, clean),
    "subspace": lambda config, data, samples, clean: _subspace_metrics(config, data, samples, clean),
    "wasserstein": lambda config, data, samples, clean: {
        "w2": ground_truth.wasserstein2(samples, clean()),
        "w2_floor": ground_truth.wasserstein2(clean(), clean()),
    },
    "noise_energy": lambda config, data, samples, clean: _noise_energy(config, data, samples),
    "fd": lambda config, data, samples, clean: _frechet(config, data, samples),
    "memorization": lambda config, data, samples, clean: memorization.nearest_neighbours(
        samples, _reference(config, data.train)
    ),
}


def _reference(config, examples):
    return wire.spread(examples, config.evaluation.max_reference)


def _noise_energy(config, data, samples):
    clean = _reference(config, data.source.train)
    return {
        f"noise_energy{suffix}": fidelity.noise_energy(x, clean, config.evaluation.noise_directions)
        for suffix, x in [("", samples), ("_clean", clean), ("_dirty", _reference(config, data.train))]
    }


def _subspace_metrics(config, data, samples, clean):
    truth = data.source.subspace
    if truth is None:
        raise ValueError(f"the source {config.data.source} has no linear subspace")
    results = {}
    for suffix, x in [("", samples), ("_dirty", _reference(config, data.train)), ("_clean", clean())]:
        angles = subspace.principal_angles(x, truth)
        numbers = {"principal_angle_mean": float(angles.mean()), "principal_angle_max": float(angles.max())}
        results |= {f"{name}{suffix}": value for name, value in (subspace.distances(x, truth) | numbers).items()}
    return results


def _plane(data, samples, clean):
    if data.source.plane is None:
        raise ValueError("these data have no plane")
    return ground_truth.plane(samples, clean(), data.source.plane)


def _frechet(config, data, samples):
    name = config.evaluation.features
    features = pick(FEATURES, config, "evaluation.features")(config.evaluation.cache_dir)
    clean = features(_reference(config, data.source.train))
    return {
        f"fd_{name}": fidelity.frechet_distance(features(samples), clean),
        f"fd_{name}_dirty": fidelity.frechet_distance(features(_reference(config, data.train)), clean),
    }


def evaluate(
    config: ml_collections.ConfigDict, data: Data, samples: np.ndarray, model: Model | None = None
) -> dict[str, float]:
    """The metrics of a set of samples; a run calls it on a few training examples first, so that mistakes show early.

    Args:
        config: reads `evaluation`.
        data: what the model was trained on, and the clean truth.
        samples: [N, ...].
        model: what drew them; None where only mistakes are looked for, and nothing is measured on it.

    Returns:
        name -> number, for every entry of `evaluation.metrics`.

    Raises:
        UserError: an unknown metric, or one that the data cannot have.
    """
    rng = np.random.default_rng(0)  # the same clean draws for every run: distances differ by the samples alone
    results = {}
    for name in config.evaluation.metrics:
        if name not in METRICS | MODEL_METRICS:
            known = ", ".join(METRICS | MODEL_METRICS)
            raise UserError(f"config.evaluation.metrics: {name!r} is not known: choose among {known}")
        with refused(f"config.evaluation.metrics: {name}"):
            if name in METRICS:
                results |= METRICS[name](config, data, samples, lambda: data.source.clean(rng, len(samples)))
            else:
                results |= MODEL_METRICS[name](config, data.source, model)
    return results
