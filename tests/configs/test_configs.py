"""Configs are the interface: files and variants build and take steps; every key is read, commented and overridable."""

import copy
import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.features import fall_back
from advdiff_jax.builders.process import SAMPLERS
from advdiff_jax.builders.registry import lookup
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.builders.teaching import build_teaching
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError
from advdiff_jax.sweep.run import expand
from advdiff_jax.training import parallel, state
from advdiff_jax.workdir import flatten
from configs import default, digits, plane3d
from configs.variants import VARIANTS, with_variant
from tests.launching import ROOT

CONFIGS = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"default", "variants", "__init__"})
ABLATIONS = sorted({path.stem for path in (ROOT / "configs" / "ablations").glob("*.py")} - {"common", "__init__"})


def load(name, variant=None):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def shrink(config):
    """The same path in less time: what is left out is width, depth and data. What is not shipped is replaced by photographs."""
    config.train.batch_size, config.data.num_examples, config.data.size, config.data.held_out = 8, 64, 8, 0
    config.network.update({"base_channels": 4, "channel_mults": (1,), "res_blocks": 1, "heads": 1, "width": 8, "depth": 1})
    config.robust.group_size = 1  # there is one example a device
    config.network.attention_resolutions = ()  # in the middle there is attention all the same
    config.baselines.updates = 2
    if config.data.source in ("tfds", "folder"):
        config.data.source = "photo_crops"
    if config.network.kind == "pretrained":  # no checkpoint is shipped
        config.network.kind = "unet"
    return config


def first_steps(config):
    """Takes three steps with the objective; returns the last metrics and how far the parameters went in learning rates."""
    config = resolve(config)
    data = build_data(config)
    teaching = build_teaching(config, data)
    experiment = build_experiment(config, data.train.shape[1:])
    run = parallel.replicate(state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer))
    before = jax.device_get(parallel.first_replica(run.params))
    step = parallel.parallel_train_step(experiment.steps[config.objective != "denoising"])
    # The learning rate warms up from zero.
    source = BatchSource(data.train, 8, seed=0, **teaching.of_batches())
    for batch in parallel.shard(iter([source[0]] * 4)):
        run, metrics = step(run, jax.random.key(1), batch)
    after, metrics = jax.device_get(parallel.first_replica((run.params, metrics)))
    moved = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), before, after)
    rate = config.train.learning_rate / max(1, config.train.warmup_steps)
    return metrics, max(jax.tree.leaves(moved)) / rate


# Every variant takes its steps on points, on images the fullest objective and what images alone have. All are traced on
# images for their cost (tests/benchmarks/test_training.py), and all configs of images with the fullest objective, below.
IMAGES_ONLY = {"ambient_mask"}
STEPPED = {
    "plane3d": tuple(variant for variant in VARIANTS if variant not in IMAGES_ONLY),
    "digits": ("robust_adv", "ambient_mask"),
    **dict.fromkeys(("gaussian", "mixture"), ("robust_adv",)),
}
PENALISED = {"invariance", "robust_ran", "robust_adv", "robust_adv_cutoff", "robust_adaptive", "robust_fast", "jvp"}
PENALISED |= {"ambient_blind_adv", "discard_blind_adv"}


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name, variants in STEPPED.items() for variant in variants],
)
def test_a_config_with_a_variant_takes_a_step(name, variant):
    config = shrink(load(name, variant))
    assert config.variant == variant
    if variant in IMAGES_ONLY:
        config.data.corruptions = ("gaussian", "missing_pixels")
    metrics, moved = first_steps(config)
    parts = [value for part, value in metrics.items() if part in ("denoising", "penalty")]
    assert metrics["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert metrics["grad_norm"] > 0.0
    assert 0.5 < moved < 12.0  # three updates of Adam, of at most a few learning rates each; at_diff takes two a step
    assert ("residual" in metrics) == (variant in PENALISED)


def shape_of(config):
    if config.network.kind != "unet":
        return (3,)
    is_digits = "digits" in (config.data.source, config.data.base if config.data.source == "linear_subspace" else "")
    return (8, 8, 1) if is_digits else (config.data.size, config.data.size, config.data.channels)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_with_its_variants(name):
    """Every variant with a config of points, of digits and of files; what differs in the others is numbers."""
    for variant in VARIANTS if name in ("plane3d", "digits", "image_folder") else ("ddpm", "robust_fast", "ambient_blind"):
        config = resolve(shrink(load(name, variant)))
        if variant in IMAGES_ONLY and len(shape_of(config)) != 3:
            with pytest.raises(UserError, match=rf"config\.objective={variant} needs images, and data\.source=\w+ has none"):
                build_experiment(config, shape_of(config))
            continue
        experiment = build_experiment(config, shape_of(config))
        assert experiment.step_schedule.total == config.train.steps
        assert ({*experiment.step_schedule.shares()} == {False}) == (config.objective == "denoising")


PRETRAINED = {name for name in CONFIGS if load(name).network.kind == "pretrained"}  # without a network of their own


IMAGES = sorted({*CONFIGS} - {"plane3d", "mixture", "gaussian"} - PRETRAINED)


@pytest.mark.parametrize(("name", "variant"), [*((name, "robust_adv") for name in IMAGES), ("cifar10", "robust_adv,tiny")])
def test_every_network_takes_its_images_at_their_true_size(name, variant):
    config = resolve(load(name, variant))
    assert config.variant == variant
    experiment = build_experiment(config, shape_of(config))
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *shape_of(config)), jnp.float32)
    found = jax.eval_shape(functools.partial(experiment.predict), params, x, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert (found.shape, found.dtype) == (x.shape, x.dtype)


def test_the_step_of_cifar10_at_its_true_size():
    """Traced, not run: 53 million parameters are too many for a small machine. The step has one residual block a level."""
    config, shape = load("cifar10", "ddpm"), (32, 32, 3)
    params = jax.eval_shape(build_experiment(resolve(config), shape).init, jax.random.key(0))
    assert 50e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 55e6
    config.network.res_blocks = 1
    check_trace(resolve(config), shape, penalised=False)


@pytest.mark.parametrize("name", sorted({*CONFIGS} - {*STEPPED} - PRETRAINED))  # shrunk, those are like the others
def test_the_step_of_a_config_with_the_fullest_objective_is_traced(name):
    config = resolve(shrink(load(name, "robust_adv")))
    check_trace(config, build_data(config).train.shape[1:])


def check_trace(config, shape, penalised=True):
    """Traces a step on 8 devices: it keeps the shapes and types of its state, and has a penalty or none."""
    experiment = build_experiment(config, shape)
    fresh = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    run = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape), x.dtype), fresh)
    batch = {"examples": jax.ShapeDtypeStruct((8, config.train.batch_size // 8, *shape), jnp.uint8)}
    after, metrics = jax.eval_shape(parallel.parallel_train_step(experiment.steps[penalised]), run, jax.random.key(1), batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), run)
    assert ("residual" in metrics) == penalised


@pytest.mark.parametrize(
    "overrides",
    [
        {"robust.radius": "noise_units", "robust.ball": "l2", "robust.maximize": "residual", "robust.attack_steps": 3},
        {"robust.target_shift": "state_units", "robust.maximize": "residual"},
        {"robust.radius": "constant", "robust.random_start": True, "diffusion.schedule": "vp_cosine"},
        {"diffusion.grid_steps": 0, "diffusion.prediction": "v", "train.decay": "constant"},
        {"diffusion.prediction": "x0", "network.dtype": "bfloat16"},
        {"diffusion.prediction": "score", "robust.bias_max": 0.2, "robust.maximize": "denoising"},
    ],
)
def test_every_other_choice_takes_a_step(overrides):
    config = shrink(plane3d.get_config("robust_adv"))
    config.update_from_flattened_dict(overrides)
    metrics, moved = first_steps(config)
    assert metrics["loss"] == pytest.approx(metrics["denoising"] + metrics["penalty"], rel=1e-5)
    assert metrics["penalty"] > 0.0
    assert 0.5 < moved < 4.0


def draw_21(**overrides):
    config = shrink(plane3d.get_config("ddpm"))
    config.sampling.update({"steps": 3, "batch_size": 2, "eta": 0.5, **overrides})
    experiment = build_experiment(resolve(config), (3,))
    params = parallel.replicate(experiment.init(jax.random.key(0)))
    return np.concatenate([*experiment.sampler(params, jax.random.key(1), 21)])  # two rounds of sixteen


@pytest.mark.parametrize("method", SAMPLERS)
def test_every_sampler_samples(method):
    samples = draw_21(method=method)
    assert samples.shape == (21, 3)
    assert len(np.unique(samples, axis=0)) == 21
    assert np.abs(samples).max() > 0.5


@pytest.mark.parametrize("method", ["ddpm", "ode"])
def test_samples_are_clipped(method):
    """The network is untrained, its output 0: the estimate of x0 is large, and the last step ends with it."""
    samples = draw_21(method=method, clip=0.5)
    assert len(np.unique(samples, axis=0)) > 1
    assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_expands_and_builds(name):
    config = importlib.import_module(f"configs.ablations.{name}").get_config()
    larger = 256 / config.base.train.batch_size
    config.base.train.batch_size = 256  # of which eight devices can make groups of 32
    config.base.train.budget_evaluations = round(larger * config.base.train.budget_evaluations)  # of as many steps
    runs = expand(config)
    assert len(runs) == len(config.runs) * len(config.seeds)
    assert len({run.config.to_json_best_effort() for run in runs}) == len(runs)
    built = {}
    for run in runs:
        if run.seed != config.seeds[0]:
            continue
        again = with_variant(copy.deepcopy(config.base), run.config.variant)
        again.update(config.runs[run.label])
        again.seed, again.train.steps = run.seed, run.config.train.steps  # of the budget
        fall_back(again)
        assert flatten(again) == flatten(run.config)
        # One setting stands for all: settings differ in how dirty the data are.
        built.setdefault((run.config.variant, run.label.rpartition("/")[-1]), run.config)
    for one in built.values():
        small = one.copy_and_resolve_references()
        small.unlock()
        small.data.num_examples = 64
        is_shipped = small.data.source not in ("tfds", "folder")
        shape = lookup(SOURCES, small, "data.source").load(small.data).train.shape[1:] if is_shipped else shape_of(small)
        build_experiment(small, shape)


def test_every_key_is_read_and_commented():
    program = "\n".join(path.read_text() for path in [*(ROOT / "advdiff_jax").rglob("*.py"), ROOT / "launch.py"])
    source = (ROOT / "configs" / "default.py").read_text()
    for key in flatten(default.get_config()):
        section, _, leaf = key.rpartition(".")
        assert re.search(rf"\.{leaf}\b|\"{key}\"|\"{section}\", \"{leaf}\"", program), f"nothing reads config.{key}"
        assert re.search(rf"^    {section or 'config'}\.{leaf} = .*  # .+$", source, re.MULTILINE), (
            f"config.{key} has no comment"
        )


def test_every_key_can_be_overridden(monkeypatch):
    """Each key given on the command line, each with a value of its own."""
    changed = {}
    for key, value in flatten(default.get_config()).items():
        new = {bool: lambda v: not v, str: lambda v: v + "x", list: lambda v: (*v, v[0] if v else 1.0)}.get(
            type(value), lambda v: v + 1
        )(value)
        changed[key] = new
    argv = ["launch.py", "--config=configs/plane3d.py", *(f"--config.{key}={value}" for key, value in changed.items())]
    monkeypatch.setattr("sys.argv", argv)  # config_flags looks there for the overrides
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values(argv)
    found = flatten(values["config"].value)
    assert found == {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}


@pytest.mark.parametrize(("name", "default"), [("digits", "robust_adv"), ("image_folder", "ambient_blind")])
def test_without_a_variant_own_images_are_measured_and_the_rest_is_the_papers_method(name, default):
    assert [load(name, variant).variant for variant in (None, "tiny", "ddpm,tiny")] == [default, f"{default},tiny", "ddpm,tiny"]


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match=r"'robust' is unknown: set one of ddpm, invariance, .*, alone or with ,tiny"):
        plane3d.get_config("robust")


def test_images_that_the_network_cannot_halve_are_refused():
    config = digits.get_config()
    config.network.channel_mults = (1, 1, 1, 1, 1)
    with pytest.raises(
        UserError, match=r"config\.network\.kind=unet on examples of shape \(8, 8, 1\): .*channel_mults.*set fewer levels"
    ):
        build_experiment(resolve(config), (8, 8, 1))


def test_attention_that_another_image_size_would_lose_is_refused():
    """Configs for 64 pixels attend at 16 and 8, and 96 pixels have no such level: 15 blocks of attention would be missing."""
    config = load("image_folder", "ddpm")
    said = r"config\.network\.kind=unet .*: attention_resolutions=.* no level has height 8, 16; set some of .* 96, 48, 24, 12"
    with pytest.raises(UserError, match=said):
        build_experiment(resolve(config), (96, 96, 3))
    config.network.attention_resolutions = (24, 12)
    names = jax.eval_shape(build_experiment(resolve(config), (96, 96, 3)).init, jax.random.key(0))
    assert len([name for name in names if name.endswith("attention")]) == 1 + 2 * (3 + 4)
