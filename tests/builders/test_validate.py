"""The door: a config is checked and completed once; an override that the run would not read is refused, and no other."""

import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from configs import default, digits, plane3d

BOTH = "ambient_equivariance|discard_equivariance"  # objectives with a penalty on top


@pytest.mark.parametrize(
    ("variant", "key", "needed", "found"),
    [
        ("robust_fast", "robust.cut", "config.robust.weight=cutoff", "config.robust.weight=adaptive"),
        ("robust_adv", "robust.kappa0", "config.robust.weight=cutoff|adaptive", "config.robust.weight=paper"),
        ("robust_ran", "robust.attack_steps", "config.robust.perturbation=adversarial", "config.robust.perturbation=random"),
        ("ddpm", "baselines.gamma", "config.objective=ddpm_ip", "config.objective=denoising"),
        (
            "ddpm_ip",
            "criterion",
            "config.objective=denoising|equivariance|invariance|discard_equivariance|em|em_blind",
            "config.objective=ddpm_ip",
        ),
        ("jvp", "robust.group_size", f"config.objective=equivariance|invariance|{BOTH}", "config.objective=jvp"),
        ("at_diff", "robust.lazy_interval", "config.objective=equivariance|invariance|jvp", "config.objective=at_diff"),
        (
            "ambient_oracle",
            "robust.start_step",
            "config.objective=equivariance|invariance|jvp",
            "config.objective=ambient_oracle",
        ),
        ("robust_adv", "baselines.huber_c", "config.criterion=pseudo_huber|huber", "config.criterion=square"),
        ("ddpm", "network.heads", "config.network.kind=unet", "config.network.kind=mlp"),
        ("ddpm", "data.jpeg_quality", "config.data.corruptions=jpeg", r"config.data.corruptions=('gaussian',)"),
        ("ddpm", "poison.radius", "--mode=poison", "--mode=train"),
        # The choice of these keys is not read itself: what it needs is named.
        ("jvp", "robust.step_size", f"config.objective=equivariance|invariance|{BOTH}", "config.objective=jvp"),
        ("ddpm", "robust.lam", f"config.objective=equivariance|invariance|jvp|{BOTH}", "config.objective=denoising"),
        ("ddpm", "data.subspace_dim", "config.data.source=linear_subspace", "config.data.source=plane3d"),
    ],
)
def test_an_override_that_nothing_reads_is_refused(variant, key, needed, found):
    with pytest.raises(UserError) as caught:
        resolve(default.get_config(variant), ["seed", key], modes.MODES)
    message = str(caught.value)
    assert message.startswith(f"config.{key}=")
    assert f"would not be read: it needs {needed}, and this run ({variant}) has {found}; set that, or leave this out" in message


@pytest.mark.parametrize(
    ("variant", "keys", "mode"),
    [
        (
            "robust_fast",
            ["robust.kappa0", "robust.explained", "robust.group_size", "baselines.huber_c", "robust.attack_steps"],
            "train",
        ),
        ("robust_adv", ["robust.lam", "robust.rho", "robust.step_size", "robust.start_step", "robust.maximize"], "train"),
        ("robust_adv_cutoff", ["robust.cut", "robust.exponent"], "train"),
        ("jvp", ["robust.lam", "robust.ball", "robust.lazy_interval"], "train"),
        ("ambient_guess", ["baselines.guess", "baselines.margin", "data.noise_std"], "train"),
        ("at_diff", ["baselines.updates", "train.steps", "data.noise_std"], "train"),
        ("ddpm", ["robust.explained", "data.half_width", "sampling.variance", "evaluation.w2_points"], "evaluate"),
        ("ddpm", ["poison.radius", "poison.checkpoint"], "poison"),
    ],
)
def test_an_override_that_is_read_is_accepted(variant, keys, mode):
    resolve(default.get_config(variant), keys, modes.MODES, mode)


def test_keys_that_a_run_does_not_read_may_have_values_in_its_config():
    config = plane3d.get_config("jvp")
    config.robust.group_size, config.data.jpeg_quality = 4, 50
    resolve(config)


def test_a_key_that_follows_another_is_set_alone():
    config = plane3d.get_config("robust_adv")
    config.robust.bias_max, config.sampling.seed = 0.5, 3
    assert (config.robust.bias_min, config.seed, config.data.seed) == (8 / 255, 0, 0)


def test_the_resolved_config_is_a_locked_copy_without_references():
    config = plane3d.get_config("robust_adv")
    resolved = resolve(config)
    config.robust.bias_min = 0.5
    assert (config.robust.bias_max, resolved.robust.bias_max) == (0.5, 8 / 255)
    with pytest.raises(AttributeError, match="locked"):
        resolved.robust.stepz = 3
    resolved = resolve(resolved)  # once more changes nothing
    assert workdir.flatten(resolved) == workdir.flatten(resolve(plane3d.get_config("robust_adv")))


@pytest.mark.parametrize(
    ("variant", "overrides", "message"),
    [
        ("robust_adv", {"data.source": "moons"}, r"config\.data\.source='moons' is unknown: set one of plane3d, mixture"),
        (
            "robust_adv",
            {"data.corruptions": ("gausian",)},
            r"corruptions='gausian' is unknown; did you mean gaussian\?: set one of",
        ),
        ("robust_adv", {"criterion": "cube"}, r"config\.criterion='cube' is unknown.*: set one of square, pseudo_huber"),
        ("robust_adv", {"robust.ball": "l3"}, r"config\.robust\.ball='l3' is unknown: set one of linf, l2"),
        ("robust_adv", {"robust.maximize": "fall"}, r"config\.robust\.maximize='fall' is unknown.*: set one of shift"),
        ("robust_adv", {"diffusion.prediction": "noise"}, r"config\.diffusion\.prediction='noise' is unknown"),
        ("robust_adv", {"network.dtype": "float31"}, r"config\.network\.dtype='float31' is unknown; did you mean float32\?"),
        (
            "robust_adv",
            {"network.time_input": "index"},
            r"config\.network\.time_input='index' is unknown.*: set one of step, t, log_noise",
        ),
        ("robust_adv", {"sampling.method": "leapfrog"}, r"config\.sampling\.method='leapfrog' is unknown.*: set one of ddpm"),
        ("robust_adv", {"train.decay": "linear"}, r"config\.train\.decay='linear' is unknown.*: set one of constant, cosine"),
        ("robust_adv", {"evaluation.metrics": ("speed",)}, r"config\.evaluation\.metrics='speed' is unknown"),
        ("robust_adv", {"evaluation.diagnostics": ("inner",)}, r"config\.evaluation\.diagnostics='inner' is unknown"),
        ("pseudo_huber", {"baselines.huber_schedule": "cosine"}, r"huber_schedule='cosine' is unknown.*: set one of constant"),
        ("robust_fast", {"robust.group_size": 7}, r"group_size=7 must divide the batch of a device, which is 64 .*: set 4$"),
        (
            "ddpm",
            {"train.more_ema_decays": (0.9, 0.999)},
            r"more_ema_decays=\(0\.9, 0\.999\) repeats a decay, or has .*=0\.999",
        ),
        ("ddpm", {"sampling.ema_decay": 0.9}, r"sampling\.ema_decay=0\.9 is not an average of this run: set one of 0\.999$"),
        ("ddpm", {"train.keep_every": 1500}, r"keep_every=1500 is not a multiple of .*checkpoint_every=1000: set 2000$"),
        ("robust_adv", {"train.accumulate": 3}, r"accumulate=3 must divide the batch of a device, which is 64 .*: set 2$"),
        (
            "robust_fast",
            {"train.accumulate": 8},
            r"group_size=16 must divide the micro-batch of a device, which is 8 \(.* on 8 devices in 8 micro-batches\): set 8$",
        ),
        ("robust_adv", {"train.batch_size": 12}, r"train\.batch_size=12 is not divisible by the 8 devices: set 8$"),
        ("robust_adv", {"train.batch_size": 4}, r"train\.batch_size=4 is not divisible by the 8 devices: set 8$"),
        (
            "robust_adv",
            {"train.warmup_steps": 4000},
            r"warmup_steps=4000 must be smaller than config\.train\.steps=4000: lower it",
        ),
        (
            "robust_adv",
            {"robust.start_step": 4000.0},
            r"start_step=4000 leaves none of the 4000 steps to .*'equivariance': lower it",
        ),
        (
            "robust_adv",
            {"robust.random_start": False},
            r"random_start=False: the gradient of maximize='shift' is zero",
        ),
        (
            "robust_adaptive",
            {"robust.start_step": 0.0},
            r"weight='adaptive' follows .*: set config\.robust\.start_step above 0",
        ),
        (
            "ddpm",
            {"train.budget_evaluations": 100},
            r"budget_evaluations=100 is too small for one training step: .* costs 1536",
        ),
        (
            "robust_adv",
            {"train.budget_evaluations": 100 * 4096},
            r"warmup_steps=100 must be smaller than config\.train\.steps=100, the number that .*budget_evaluations pays for",
        ),
    ],
)
def test_a_mistake_ends_in_one_line_with_the_key(variant, overrides, message):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message) as caught:
        resolve(config)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("config.")


@pytest.mark.parametrize(
    ("variant", "overrides"),
    [
        ("robust_adv", {"robust.random_start": False, "robust.maximize": "denoising"}),
        ("robust_ran", {"robust.random_start": False}),  # no ascent
        ("robust_adaptive", {"robust.start_step": 0.0, "init_from": "elsewhere"}),
        ("ddpm", {"robust.group_size": 7}),
        ("ddpm", {"train.warmup_steps": 4000, "train.decay": "constant"}),
    ],
)
def test_values_that_do_not_contradict_each_other_are_accepted(variant, overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict(overrides)
    resolve(config)


def test_a_group_is_part_of_the_batch_of_one_device():
    with pytest.raises(
        UserError, match=r"config\.robust\.group_size=16 must divide .*, which is 4 \(config\.train\.batch_size=32"
    ):
        resolve(digits.get_config("robust_fast"))


def test_steps_that_a_budget_would_replace_are_refused():
    config = plane3d.get_config("ddpm")
    config.train.budget_evaluations, config.train.steps = 3 * 512 * 200, 50
    assert resolve(config).train.steps == 200  # the file's own
    with pytest.raises(UserError, match=r"config\.train\.steps=50 would not be read: config\.train\.budget_evaluations=307200"):
        resolve(config, ["train.steps"])
    assert resolve(config, ["train.steps", "train.budget_evaluations"]).train.steps == 200
