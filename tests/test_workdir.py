"""The folder of a run: claimed by one config, and read again after keys, sections, values and results were renamed."""

import json
import logging

import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from configs import mixture, plane3d, subspace_digits

# What earlier versions wrote -> what it is called today, of a run with a lazy penalty on one example per group.
RENAMED = {
    ("robust", "every"): ("robust", "lazy_interval"),
    ("robust", "one_in"): ("robust", "group_size"),
    ("data", "on_bad_picture"): ("data", "on_bad_image"),
    ("data", "subspace_law"): ("data", "subspace_distribution"),
    ("evaluation", "looks"): ("evaluation", "diagnostics"),
}


def config_of(source=plane3d, variant="robust_fast", **overrides):
    config = source.get_config(variant)
    config.update_from_flattened_dict({"train.batch_size": 512, "robust.group_size": 8, "robust.lazy_interval": 2} | overrides)
    return resolve(config)


def as_schema_1(config):
    """Returns the config as an earlier version stored it: old names, and no `schema`."""
    stored = json.loads(config.to_json_best_effort())
    for (section, old), (_, new) in RENAMED.items():
        stored[section][old] = stored[section].pop(new)
    stored["neighbours"] = stored.pop("baselines")
    old_values = {"gain": "transfer", "overfitting": "inner"}
    stored["evaluation"]["looks"] = [old_values[name] for name in stored["evaluation"]["looks"]]
    stored["robust"]["maximize"] = {"residual": "violation"}.get(config.robust.maximize, config.robust.maximize)
    stored["data"]["source"] = {"record_dataset": "stored"}.get(config.data.source, config.data.source)
    # One key had the number of Gaussians and the dimension of the subspace.
    dim = stored["data"].pop("subspace_dim")
    if config.data.source == "linear_subspace":
        stored["data"]["components"] = dim
    return stored


def write(folder, stored):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(stored))
    return folder / "config.json"


def test_a_run_from_before_a_key_keeps_what_it_did(tmp_path):
    """Without clean examples `ambient_blind` learnt nothing below their noise, when there was nothing to choose."""
    for variant, did in (("ambient_blind", "lowest"), ("discard_blind", "final")):
        stored = json.loads(config_of(variant=variant).to_json_best_effort())
        del stored["noise"]["without_clean"]
        path = write(tmp_path / variant, {"schema": 2, **stored})
        assert workdir.run_config(path, config_of(variant=variant)).noise.without_clean == did
    stored = json.loads(config_of(variant="ambient_blind", **{"sampling.final_denoise": 0.0}).to_json_best_effort())
    for schema, means in ((2, "learnt"), (workdir.SCHEMA, 0.0)):  # 0 was the step that is due, and is none
        path = write(tmp_path / str(schema), {"schema": schema, **stored})
        assert workdir.run_config(path, config_of(variant="ambient_blind")).sampling.final_denoise == means
    with pytest.raises(UserError, match=r"noise\.without_clean \('lowest' there, 'final' here\)"):
        workdir.claim(config_of(variant="ambient_blind"), tmp_path / "ambient_blind", evaluate_only=True)


@pytest.mark.parametrize(
    ("overrides", "lost"),
    [
        ({}, "data.subspace_dim"),
        ({"robust.maximize": "residual", "evaluation.diagnostics": ("gain",)}, "data.subspace_dim"),
        ({"data.source": "record_dataset", "data.path": "poison.array_record"}, "data.subspace_dim"),
        ({"data.source": "linear_subspace", "data.subspace_dim": 5}, "data.components"),
    ],
)
def test_a_config_of_an_earlier_version_is_read_under_todays_names(tmp_path, overrides, lost):
    config = config_of(**overrides)
    path = write(tmp_path, as_schema_1(config))
    assert "every" in path.read_text()
    assert "lazy_interval" not in path.read_text()
    wanted = workdir.flatten(config)
    del wanted[lost]  # the one key had another meaning, or the key is new
    assert workdir.read_config(path) == wanted
    assert workdir.flatten(workdir.run_config(path, config_of())) == workdir.flatten(config)


def test_a_run_of_an_earlier_version_goes_on_and_differs_by_todays_names(tmp_path, caplog):
    config = config_of()
    stored = as_schema_1(config)
    del stored["train"]["keep_checkpoints"]  # as if the key were newer than the run
    write(tmp_path, stored)
    with caplog.at_level(logging.INFO, "advdiff_jax"):
        assert workdir.claim(config, tmp_path, evaluate_only=False) == tmp_path
    assert "config.json is of an earlier version; keys that it lacks take the values of this config" in caplog.text
    assert "data.subspace_dim=8" in caplog.text
    assert "train.keep_checkpoints=2" in caplog.text
    assert json.loads((tmp_path / "config.json").read_text()) == stored  # left as it is
    other = config_of(**{"robust.lazy_interval": 4, "baselines.huber_c": 0.5})
    differing = r"another config: baselines\.huber_c \(1\.0 there, 0\.5 here\), robust\.lazy_interval \(2 there, 4 here\)"
    with pytest.raises(UserError, match=differing):
        workdir.claim(other, tmp_path, evaluate_only=False)


def test_the_subspace_of_an_earlier_version_is_compared_with_its_dimension(tmp_path):
    config = config_of(subspace_digits, "robust_adv", **{"robust.group_size": 1})
    assert config.data.subspace_dim == 10
    stored = as_schema_1(config)
    assert stored["data"]["components"] == 10
    write(tmp_path, stored)
    assert workdir.claim(config, tmp_path, evaluate_only=False) == tmp_path
    other = config_of(subspace_digits, "robust_adv", **{"robust.group_size": 1, "data.subspace_dim": 9})
    with pytest.raises(UserError, match=r"data\.subspace_dim \(10 there, 9 here\)"):
        workdir.claim(other, tmp_path, evaluate_only=False)
    # The number of Gaussians of a mixture stays what it was.
    gaussians = config_of(mixture, "robust_adv", **{"robust.group_size": 1, "data.components": 3})
    assert workdir.read_config(write(tmp_path / "mixture", as_schema_1(gaussians)))["data.components"] == 3


def test_a_config_of_today_is_not_renamed_and_one_of_tomorrow_is_refused(tmp_path):
    config = config_of()
    workdir.claim(config, tmp_path, evaluate_only=False)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["schema"] == workdir.SCHEMA == 3
    assert workdir.read_config(tmp_path / "config.json") == workdir.flatten(config)
    write(tmp_path, stored | {"schema": 4})
    for read in (
        lambda: workdir.read_config(tmp_path / "config.json"),
        lambda: workdir.claim(config, tmp_path, evaluate_only=True),
    ):
        with pytest.raises(UserError, match=r"config\.json has schema=4, and this version reads up to 3: update advdiff_jax"):
            read()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON .*: name another workdir, or restore the file"):
        workdir.read_config(tmp_path / "config.json")


def test_results_of_an_earlier_version_are_read_under_todays_names(tmp_path):
    (tmp_path / "results.json").write_text('{"inner_pgd10_over_fgsm": 1.5, "w2": 2.0, "overfitting_free_over_fgsm": 3.0}')
    found = workdir.read_results(tmp_path / "results.json")
    assert found == {"overfitting_pgd10_over_fgsm": 1.5, "w2": 2.0, "overfitting_free_over_fgsm": 3.0}


def test_what_may_differ_from_the_run(tmp_path):
    workdir.claim(config_of(), tmp_path, evaluate_only=False)
    on_other_host = config_of(**{"data.num_workers": 3, "data.data_dir": "elsewhere", "evaluation.cache_dir": "elsewhere"})
    assert workdir.claim(on_other_host, tmp_path, evaluate_only=False) == tmp_path
    sampled = config_of(**{"sampling.steps": 9, "evaluation.grid": 4})
    with pytest.raises(UserError, match=r"sampling\.steps \(250 there, 9 here\); name another --workdir, or --mode=evaluate"):
        workdir.claim(sampled, tmp_path, evaluate_only=False)
    other = tmp_path / "evaluations" / "evaluation.grid=4,sampling.steps=9"
    assert workdir.claim(sampled, tmp_path, evaluate_only=True) == other
    assert other.is_dir()
    trained = config_of(**{"train.steps": 3000, "sampling.steps": 9})
    with pytest.raises(UserError, match=r"train\.steps \(4000 there, 3000 here\); give the run's own values as well$"):
        workdir.claim(trained, tmp_path, evaluate_only=True)


def test_a_folder_with_previews_alone_may_become_a_run(tmp_path):
    (tmp_path / "preview").mkdir()
    with pytest.raises(UserError, match="is not empty and holds no run: name another --workdir"):
        workdir.claim(config_of(), tmp_path, evaluate_only=False)
    assert workdir.claim(config_of(), tmp_path, evaluate_only=False, previews=modes.PREVIEWS) == tmp_path
