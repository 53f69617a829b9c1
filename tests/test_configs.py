"""Configs are the interface: files and variants build and take steps; every key is read, commented and overridable."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from advdiff_jax import ablation, builders, builders_data, builders_process, choices
from advdiff_jax.data.batches import BatchSource
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from advdiff_jax.workdir import flatten
from configs import default, digits, plane3d
from configs.ablation import list_of_runs
from configs.variants import VARIANTS, with_variant

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"default", "variants", "ablation"})
ABLATIONS = sorted(path.stem for path in (ROOT / "configs" / "ablations").glob("*.py"))


def load(name, variant=None):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def shrink(config):
    """The same path in less time: what is left out is width, depth and data. What is not shipped is replaced by photographs."""
    config.train.batch_size, config.data.num_examples, config.data.size = 8, 64, 8
    config.network.update({"base_channels": 4, "channel_mults": (1,), "res_blocks": 1, "heads": 1, "width": 8, "depth": 1})
    config.robust.one_in = 1  # there is one example a device
    config.network.attention_resolutions = ()  # in the middle there is attention all the same
    if config.data.source in ("tfds", "folder"):
        config.data.source = "photo_crops"
    return config


def first_step(config):
    data = builders_data.build_data(config)
    experiment = builders.build(config, data.train.shape[1:])
    run = parallel.replicate(state.create(jax.jit(experiment.init)(jax.random.key(0)), experiment.optimizer))
    before = jax.device_get(parallel.first_replica(run.params))
    step = parallel.parallel_train_step(experiment.plan.full)
    # Two steps: the learning rate warms up from zero.
    source = BatchSource(data.train, 8, seed=0, noise_std=data.noise_std)
    for batch in parallel.shard(iter([source[0]] * 3)):
        run, metrics = step(run, jax.random.key(1), batch)
    after, metrics = jax.device_get(parallel.first_replica((run.params, metrics)))
    moved = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), before, after)
    return metrics, max(jax.tree.leaves(moved))


# Every variant takes its step on points, and every config one with the fullest objective. On pictures the variants with code of
# their own do; all of them are traced there for their cost (tests/test_benchmark.py).
STEPPED = {"plane3d": tuple(VARIANTS), "digits": ("ddpm", "robust_adv", "jvp", "at_diff", "ambient_oracle")}
SECOND_TERM = {"invariance", "robust_ran", "robust_adv", "robust_adv_cutoff", "robust_adaptive", "robust_fast", "jvp"}


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in CONFIGS for variant in STEPPED.get(name, ("robust_adv",))],
)
def test_a_config_with_a_variant_takes_a_step(name, variant):
    config = shrink(load(name, variant))
    assert config.variant == variant
    metrics, moved = first_step(config)
    assert all(np.isfinite(value) for value in metrics.values())
    assert moved > 0
    assert ("violation" in metrics) == (variant in SECOND_TERM)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_with_every_variant(name):
    for variant in VARIANTS:
        config = shrink(load(name, variant))
        shape = (config.data.size, config.data.size, config.data.channels)
        builders.build(config, shape if config.network.kind == "unet" else (3,))


@pytest.mark.parametrize("variant", ["robust_adv", "robust_adv,tiny"])
@pytest.mark.parametrize("name", sorted({*CONFIGS} - {"plane3d", "mixture", "gaussian"}))
def test_every_network_takes_its_pictures_at_their_true_size(name, variant):
    config = load(name, variant)
    assert config.variant == variant
    builders.build(config, (config.data.size, config.data.size, config.data.channels))


def test_the_step_of_cifar10_at_its_true_size():
    """Traced, not run: 53 million parameters are too many for this machine."""
    config, shape = load("cifar10", "robust_adv"), (32, 32, 3)
    experiment = builders.build(config, shape)
    fresh = jax.eval_shape(lambda: state.create(experiment.init(jax.random.key(0)), experiment.optimizer))
    run = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape), x.dtype), fresh)
    batch = jax.ShapeDtypeStruct((8, config.train.batch_size // 8, *shape), jnp.uint8)
    after, metrics = jax.eval_shape(parallel.parallel_train_step(experiment.plan.full), run, jax.random.key(1), batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), run)
    assert "violation" in metrics


@pytest.mark.parametrize(
    "overrides",
    [
        {"robust.radius": "noise_units", "robust.ball": "l2", "robust.maximize": "violation", "robust.attack_steps": 3},
        {"robust.radius": "constant", "robust.random_start": True, "diffusion.schedule": "vp_cosine"},
        {"diffusion.grid_steps": 0, "diffusion.prediction": "v", "train.decay": "constant"},
        {"diffusion.prediction": "x0", "network.dtype": "bfloat16"},
        {"diffusion.prediction": "score", "robust.bias_max": 0.2},
    ],
)
def test_every_other_choice_takes_a_step(overrides):
    config = shrink(plane3d.get_config("robust_adv"))
    config.update_from_flattened_dict(overrides)
    metrics, moved = first_step(config)
    assert all(np.isfinite(value) for value in metrics.values())
    assert moved > 0


@pytest.mark.parametrize("method", builders_process.SAMPLERS)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_every_sampler_samples(method, clip):
    config = shrink(plane3d.get_config("ddpm"))
    config.sampling.update({"method": method, "steps": 3, "batch_size": 2, "clip": clip, "eta": 0.5})
    experiment = builders.build(config, (3,))
    params = parallel.replicate(experiment.init(jax.random.key(0)))
    samples = experiment.sampler(params, jax.random.key(1), 21)
    assert samples.shape == (21, 3)
    if clip:
        assert np.abs(samples).max() <= clip + 1e-5
    else:
        assert len(np.unique(samples, axis=0)) == 21


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_expands_and_builds(name):
    config = importlib.import_module(f"configs.ablations.{name}").get_config()
    runs = ablation.expand(config)
    assert len(runs) == len(config.runs) * len(config.seeds)
    assert len({config.to_json_best_effort() for _, _, config in runs}) == len(runs)
    built = set()
    for label, _, one in runs:
        again = with_variant(one.copy_and_resolve_references(), one.variant)
        again.update(config.runs[label])
        assert again == one.copy_and_resolve_references()
        # One setting stands for all: settings differ in how dirty the data are.
        if (one.variant, label.rpartition("/")[-1]) not in built:
            built.add((one.variant, label.rpartition("/")[-1]))
            one.data.num_examples, one.train.batch_size = 64, 256
            builders.build(one, choices.choose(builders_data.SOURCES, one, "data.source").train.shape[1:])


def test_an_ablation_with_an_unknown_key_is_refused():
    config = list_of_runs(
        "x", "", plane3d.get_config(), {"a": {"variant": "ddpm", "train": {"stepz": 1}}}, seeds=(0,), metrics=("w2",)
    )
    with pytest.raises(UserError, match=r"config\.runs\.a: there is no key train\.stepz; did you mean train\.steps\?"):
        ablation.expand(config)
    config.runs.a.train = {"steps": "many"}
    with pytest.raises(UserError, match=r"config\.runs\.a: .*steps"):
        ablation.expand(config)


def test_a_run_that_sets_what_it_would_not_read_is_refused():
    runs = {"a": {"variant": "robust_fast"}, "b": {"variant": "robust_adv_cutoff", "robust": {"lam": 0.5}}}
    config = list_of_runs("x", "", plane3d.get_config(), runs, seeds=(0,), metrics=("w2",))
    with pytest.raises(UserError, match=r"config\.runs\.b: config\.robust\.lam=0\.5 would not be read"):
        ablation.expand(config)


def test_a_variant_of_a_run_is_as_after_the_colon():
    list_of = lambda variant: list_of_runs("x", "", digits.get_config(), {"a": {"variant": variant}}, (0,), ("w2",))
    ((_, _, one),) = ablation.expand(list_of("robust_fast,tiny"))
    assert flatten(one) == flatten(digits.get_config("robust_fast,tiny"))
    with pytest.raises(UserError, match="run 'a': unknown variant 'robust_fst': choose one of ddpm"):
        list_of("robust_fst")
    for runs, seeds, message in [
        ({}, (0,), "needs a run and a seed at least, it has 0 and 1"),
        ({"a": {"variant": "ddpm"}}, (), "needs a run and a seed at least, it has 1 and 0"),
        ({"a": "ddpm"}, (0,), "run 'a': need a dictionary of overrides"),
    ]:
        with pytest.raises(UserError, match=message):
            ablation.expand(list_of_runs("x", "", digits.get_config(), runs, seeds, ("w2",)))


def test_a_run_that_cannot_be_is_refused_before_the_first(tmp_path):
    runs = {"a": {"variant": "ddpm"}, "b": {"variant": "robust_fast"}}  # 32 examples on 8 devices: groups of 16 do not fit
    config = list_of_runs("x", "", digits.get_config(), runs, seeds=(0,), metrics=("w2",))
    with pytest.raises(UserError, match=r"config\.runs\.b: config\.robust\.one_in=16 must divide .* which is 4 .*: try 4"):
        ablation.run_all(config, tmp_path, "train", "0/1")
    assert not list(tmp_path.iterdir())


def test_a_label_with_a_dot_is_refused():
    with pytest.raises(UserError, match=r"the label 'cut_0\.1' of a run has a dot"):
        list_of_runs("x", "", plane3d.get_config(), {"cut_0.1": {"variant": "ddpm"}}, seeds=(0,), metrics=("w2",))


def test_the_base_of_an_ablation_reaches_every_run():
    config = list_of_runs("x", "", digits.get_config(), {"a": {"variant": "ddpm"}}, seeds=(3,), metrics=("w2",))
    config.base.robust.bias_min = 0.5
    ((_, _, one),) = ablation.expand(config)
    assert one.robust.bias_max == 0.5  # a reference is still one
    assert (one.seed, one.objective) == (3, "denoising")


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
        new = {bool: lambda v: not v, str: lambda v: v + "x", list: lambda v: (*v, v[0])}.get(type(value), lambda v: v + 1)(
            value
        )
        changed[key] = new
    argv = ["launch.py", "--config=configs/plane3d.py", *(f"--config.{key}={value}" for key, value in changed.items())]
    monkeypatch.setattr("sys.argv", argv)  # config_flags looks there for the overrides
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values(argv)
    found = flatten(values["config"].value)
    assert found == {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.source", "moons", r"config\.data\.source='moons' is not known: choose one of plane3d"),
        ("data.fraction", 1.5, r"config\.data\.fraction: .*\[0, 1\], got 1.5"),
        ("data.corruptions", ("rain",), r"config\.data\.corruptions: 'rain' is not known"),
        ("data.noise_std", -0.1, r"config\.data: negative noise std"),
        ("robust.constant", -0.1, r"config\.robust: the radius must be positive"),
        ("robust.bias_min", -0.1, r"config\.robust: the radius must not be negative"),
        ("robust.kappa0", -1.0, r"config\.robust: need kappa0 >= 0"),
        ("robust.cut", 0.0, r"config\.robust: cut must be positive"),
        ("robust.lam", -0.3, r"config\.robust: a negative lambda"),
        ("robust.one_in", 7, r"config\.robust\.one_in=7 must divide the batch of a device, which is 64 .*: try 4"),
        ("robust.every", 0, r"config\.robust: need every >= 1"),
        ("robust.start_step", 4000.0, r"config\.robust\.start_step=4000 leaves no step of 4000"),
        ("robust.random_start", False, r"config\.robust\.random_start=False: the gradient of maximize='shift' is zero"),
        ("criterion", "cube", r"config\.criterion='cube' is not known: choose one of square"),
        ("robust.ball", "l3", r"config\.robust\.ball='l3' is not known: choose one of linf, l2"),
        ("robust.attack_steps", 0, r"config\.robust: need num_steps >= 1"),
        ("train.batch_size", 12, r"config\.train\.batch_size=12 is not divisible by the 8 devices: try 8"),
        ("train.steps", 0, r"config\.train\.steps=0 must be at least 1"),
        (
            "train.budget_evaluations",
            100,
            r"config\.train\.budget_evaluations=100 does not pay for one step: .* 4096 evaluations",
        ),
        ("evaluation.max_reference", 3, r"config\.evaluation\.max_reference=3 must be at least 4"),
        ("train.budget_evaluations", -1, r"config\.train\.budget_evaluations=-1 is negative"),
        (
            "train.budget_evaluations",
            100 * 4096,
            r"warmup_steps=100 must be smaller than config\.train\.steps=100, what config\.train\.budget_evaluations pays for",
        ),
        ("data.half_width", -1.0, r"config\.data: half_width must be positive"),
        ("neighbours.updates", 0, r"config\.neighbours\.updates=0 must be at least 1"),
        ("train.warmup_steps", 4000, r"config\.train\.warmup_steps=4000 must be smaller"),
        ("sampling.steps", 1001, r"config\.sampling: need 1 to 1000"),
        ("sampling.variance", "medium", r"config\.sampling: variance must be"),
        ("diffusion.prediction", "noise", r"config\.diffusion\.prediction='noise' is not known"),
        ("network.dtype", "float31", r"config\.network\.dtype='float31' is not known"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(key, value, message):
    config = plane3d.get_config("robust_adv")
    if key in ("robust.cut", "robust.kappa0"):
        config.robust.weight = "cutoff"
    if key == "robust.constant":
        config.robust.radius = "constant"
    config.data.num_examples = 16
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message) as caught:
        builders.build(config, builders_data.build_data(config).train.shape[1:])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "key", "value"),
    [
        ("at_diff", "robust.every", 2),
        ("ambient_oracle", "robust.start_step", 0.5),
        ("ddpm_ip", "criterion", "pseudo_huber"),
        ("jvp", "robust.one_in", 4),
    ],
)
def test_a_key_that_a_variant_would_ignore_is_refused(variant, key, value):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=rf"config\.{key}=.* is not for config\.objective='{variant}': leave it at"):
        builders.build(config, (3,))


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="unknown variant 'robust': choose one of ddpm"):
        plane3d.get_config("robust")


def test_pictures_for_a_network_of_points_are_refused():
    config = digits.get_config()
    config.network.channel_mults = (1, 1, 1, 1, 1)
    with pytest.raises(UserError, match=r"config\.network\.kind=unet on examples of shape \(8, 8, 1\): .*cannot be halved"):
        builders.build(config, (8, 8, 1))
