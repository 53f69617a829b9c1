"""Lists of runs: how they expand and run, and their joint tables and figures, on results that are made up."""

import json
import logging
import pathlib

import jax
import numpy as np
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.errors import UserError
from advdiff_jax.sweep import figures, report
from advdiff_jax.sweep import run as sweep_run
from advdiff_jax.sweep.figures import Moments
from advdiff_jax.sweep.run import expand, run_all, summarise
from configs import digits, plane3d
from configs.ablations.common import list_of_runs

SETTINGS = [f"p{p} s{s}" for p in (0, 30, 60, 90) for s in (5, 10, 20)]
VARIANTS = ("ddpm", "robust_ran", "robust_adv", "robust_adv_cutoff")


def many(shown=("grid",), settings=SETTINGS, **more):
    """12 settings of 4 variants, and a run that all of them share."""
    runs = {
        f"{setting}/{variant}": {"variant": variant, "data": {"noise_std": 0.01 * (i + 1)}}
        for i, setting in enumerate(settings)
        for variant in VARIANTS
    }
    runs["clean"] = {"variant": "ddpm", "data": {"fraction": 0.0}}
    return list_of_runs("many", "", plane3d.get_config(), runs, (0, 1, 2), ("w2", "spread_ratio"), shown, **more)


def few(runs, base=None, seeds=(0,)):
    return list_of_runs("x", "", base or plane3d.get_config(), runs, seeds=seeds, metrics=("w2",))


def fabricate(config, folder, value):
    """Writes value(label, seed) as the results of every run, and joins them; returns the report."""
    runs = expand(config)
    for one in runs:
        one.folder(folder).mkdir(parents=True)
        (one.folder(folder) / "results.json").write_text(json.dumps(value(one.label, one.seed)))
    return summarise(config, runs, folder)


def value(label, seed):
    group, member = figures.split(label)
    w2 = 0.1 * (1 + VARIANTS.index(member)) if group else 0.05
    return {"w2": w2 + 0.01 * (seed - 1), "spread_ratio": 0.9 + 0.1 * (seed - 1)}


def one(mean):
    return Moments(mean, 0.0, 1)


# --- from a config to runs ----------------------------------------------------------------------------------------


def test_a_shared_run_is_done_once_and_folders_nest():
    config = many()
    runs = expand(config)
    assert [run.label for run in runs[::3]] == list(config.order)  # as given, and not as a ConfigDict sorts them
    assert len(runs) == 3 * (12 * 4 + 1)
    assert [run.seed for run in runs if run.label == "clean"] == [0, 1, 2]
    assert runs[1].folder(pathlib.Path("list")) == pathlib.Path("list/p0 s5/ddpm/seed_1")


def test_the_base_the_overrides_and_the_seed_reach_every_run_in_this_order():
    config = few({"a": {"variant": "ddpm"}, "b": {"variant": "ddpm", "train": {"steps": 500}}}, digits.get_config(), (3,))
    config.base.robust.bias_min, config.base.train.steps = 0.5, 200
    first, second = expand(config)
    assert first.config.robust.bias_max == 0.5  # a reference is still one
    assert (first.config.seed, first.config.objective) == (3, "denoising")
    assert (first.config.train.steps, second.config.train.steps) == (200, 500)


def test_the_seed_changes_data_sampling_and_evaluation_unless_a_key_holds_them():
    config = few({"a": {"variant": "ddpm"}, "b": {"variant": "ddpm", "data": {"seed": 5}}}, seeds=(3, 4))
    config.base.sampling.seed = 7
    seeds = [
        (one.config.seed, one.config.data.seed, one.config.sampling.seed, one.config.evaluation.seed) for one in expand(config)
    ]
    assert seeds == [(3, 3, 7, 3), (4, 4, 7, 4), (3, 5, 7, 3), (4, 5, 7, 4)]


def again():
    """A list of a run, and of that run evaluated under another setting."""
    evaluations = {"final": {"of": "a", "sampling": {"final_denoise": 0.1}}}
    return list_of_runs("x", "", plane3d.get_config(), {"a": {"variant": "ddpm"}}, (0, 1), ("w2",), evaluations=evaluations)


def test_a_number_takes_the_place_of_a_word_that_a_variant_sets():
    variant = {"variant": "ambient_blind"}  # its final step is "learnt"
    evaluations = {"own": {"of": "b", "sampling": {"final_denoise": 0.2}}}
    config = list_of_runs(
        name="words",
        summary="",
        base=plane3d.get_config(),
        runs={"a": variant | {"sampling": {"final_denoise": 0.1}}, "b": variant},
        evaluations=evaluations,
        seeds=(0,),
        metrics=("w2",),
    )
    assert [run.config.sampling.final_denoise for run in expand(config)] == [0.1, "learnt", 0.2]


def test_an_evaluation_of_a_run_trains_nothing(tmp_path, monkeypatch):
    done = []

    def load(mode):
        def run(config, folder):
            out = workdir.claim(config, folder, evaluate_only=mode == "evaluate")
            (out / "results.json").write_text(json.dumps({"w2": 0.5 if out == folder else 0.2}))
            done.append((mode, out.relative_to(tmp_path).as_posix()))
            return out

        return run

    monkeypatch.setattr(modes, "load", load)
    run_all(again(), tmp_path, "train", "1/2")  # an evaluation is done by the shard that trains its run
    assert done == [("train", "a/seed_1"), ("evaluate", "a/seed_1/evaluations/sampling.final_denoise=0.1")]
    run_all(again(), tmp_path, "train", "0/1")
    assert done[2:] == [
        ("train", "a/seed_0"),
        ("evaluate", "a/seed_0/evaluations/sampling.final_denoise=0.1"),
        ("train", "a/seed_1"),  # which is finished; its evaluation is too
    ]
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {"a/w2": 0.5, "final/w2": 0.2}


@pytest.mark.parametrize("evaluation", [{"of": "b"}, {}, {"of": "a", "train": {"steps": 1}}])
def test_an_evaluation_of_no_run_or_of_another_model_is_refused(evaluation):
    with pytest.raises(UserError, match=r"evaluation 'final' of .*: give it a label of its own, a run of the list"):
        list_of_runs("x", "", plane3d.get_config(), {"a": {}}, (0,), ("w2",), evaluations={"final": evaluation})


def test_a_variant_of_a_run_is_as_after_the_colon():
    (run,) = expand(few({"a": {"variant": "robust_fast,tiny", "train": {"batch_size": 128}}}, digits.get_config()))
    wanted = digits.get_config("robust_fast,tiny")
    wanted.train.batch_size = 128  # sixteen a device
    assert workdir.flatten(run.config) == workdir.flatten(wanted)


@pytest.mark.parametrize(
    ("runs", "seeds", "message"),
    [
        ({"a": {"variant": "robust_fst"}}, (0,), "run 'a': .*variant.*'robust_fst'.*ddpm"),
        ({"a": "ddpm"}, (0,), "run 'a': need a dictionary of overrides, such as .*, got 'ddpm'"),
        ({"cut_0.1": {"variant": "ddpm"}}, (0,), r"the label 'cut_0\.1' of a run has a dot, .*: write it without"),
        ({}, (0,), "the list 'x' needs a run and a seed at least, it has 0 and 1"),
        ({"a": {"variant": "ddpm"}}, (), "the list 'x' needs a run and a seed at least, it has 1 and 0"),
        ({"a/b/c": {"variant": "ddpm"}}, (0,), "the label 'a/b/c' is neither 'member' nor 'group/member'"),
        (
            {"a": {"variant": "ddpm", "train": {"stepz": 1}}},
            (0,),
            r"config\.runs\.a: there is no key train\.stepz; did you mean tr",
        ),
        ({"a": {"variant": "ddpm", "train": {"steps": "many"}}}, (0,), r"config\.runs\.a: .*steps"),
        ({"a": {"variant": "ddpm", "train": {"steps": 0}}}, (0,), r"config\.runs\.a: config\.train\.steps=0 is out of range"),
        (
            {"a": {"variant": "robust_fast"}, "b": {"variant": "robust_adv_cutoff", "robust": {"lam": 0.5}}},
            (0,),
            r"config\.runs\.b: config\.robust\.lam=0\.5 would not be read: it needs config\.robust\.weight=paper",
        ),
    ],
)
def test_a_mistake_in_a_list_names_the_run(runs, seeds, message):
    with pytest.raises(UserError, match=message):
        expand(few(runs, seeds=seeds))


def test_an_override_of_the_base_must_be_read_by_a_run():
    config = few({"a": {"variant": "ddpm"}, "b": {"variant": "robust_adv"}})
    assert len(expand(config, overrides=["seeds", "base.train.steps", "base.robust.lam"])) == 2
    with pytest.raises(
        UserError, match=r"config\.base\.robust\.kappa0 would not be read by any run of the list 'x': leave it out"
    ):
        expand(config, overrides=["base.train.steps", "base.robust.kappa0"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": ("pie",)}, r"config\.figures='pie' is unknown.*: set one of bars, grid, frontier"),
        ({"figures": ("frontier",)}, r"config\.frontier=\(\): set two metrics"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused_before_any_run(change, message):
    config = few({"a": {"variant": "ddpm"}})
    config.update(change)
    with pytest.raises(UserError, match=message):
        expand(config)


def test_a_run_that_is_refused_is_refused_before_the_first(tmp_path):
    runs = {"a": {"variant": "ddpm"}, "b": {"variant": "robust_fast"}}  # 32 examples on 8 devices: groups of 16 do not fit
    with pytest.raises(UserError, match=r"config\.runs\.b: config\.robust\.group_size=16 must divide .* which is 4 .*: set 4"):
        run_all(few(runs, digits.get_config()), tmp_path, "train", "0/1")
    assert not list(tmp_path.iterdir())


def test_shards_split_the_runs_and_compiled_code_goes_with_its_run(tmp_path, monkeypatch):
    traced, done = [], []
    compiled = jax.jit(lambda x: traced.append(None) or x)
    monkeypatch.setattr(modes, "load", lambda mode: lambda config, folder: (compiled(1.0), done.append(folder)))
    config = many(settings=SETTINGS[:1])
    folders = [run.folder(tmp_path) for run in expand(config)]
    for i in range(4):
        run_all(config, tmp_path, "train", f"{i}/4")
    assert sorted(done) == sorted(folders)
    assert done[:4] == folders[::4]
    assert len(traced) == len(folders) == 15


@pytest.mark.parametrize("shard", ["4/4", "-1/4", "1", "a/b", "0/0"])
def test_a_shard_that_is_none_is_refused(tmp_path, shard):
    with pytest.raises(UserError, match=rf"--shard={shard}: give i/n with 0 <= i < n, for example 0/4"):
        run_all(few({"a": {"variant": "ddpm"}}), tmp_path, "train", shard)


def test_a_shard_without_a_run_has_nothing_to_show(tmp_path):
    assert run_all(few({"a": {"variant": "ddpm"}}), tmp_path, "preview", "998/999") == tmp_path


# --- from results to tables and figures ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """(folder, report) of many finished runs."""
    folder = tmp_path_factory.mktemp("many")
    return folder, fabricate(many(), folder, value)


def test_tables_have_settings_as_columns_and_the_best_in_bold(joined):
    folder, page = joined
    everything, w2, spread = (folder / "table.md").read_text().split("\n\n")
    assert len(everything.splitlines()) == 2 + 12 * 4 + 1
    assert "| p90 s20/robust_ran | 3 | 0.2 ± 0.01 | 0.9 ± 0.1 |" in everything
    heads, _, *rows = w2.splitlines()
    assert heads == "| w2 | " + " | ".join(SETTINGS) + " |"
    assert [row.split(" | ")[0] for row in rows] == ["| ddpm", "| robust_ran", "| robust_adv", "| robust_adv_cutoff", "| clean"]
    assert rows[0].count("**0.1 ± 0.01**") == 12
    assert rows[-1].count("0.05 ± 0.01") == 12  # shared: shown everywhere, and no rival
    assert "**" not in "".join(rows[1:])
    assert "**" not in spread  # all the same: none is best
    assert "<td><b>0.1 ± 0.01</b></td>" in page.read_text()
    assert json.loads((folder / "results.json").read_text())["p0 s5/ddpm/w2"] == pytest.approx(0.1)


def test_a_long_list_shows_figures_and_no_samples(joined):
    folder, page = joined
    assert {path.name for path in (folder / "plots").iterdir()} == {"grid_w2.png", "grid_spread_ratio.png"}
    assert page.read_text().count("data:image/png") == 2


def test_a_grid_has_a_panel_a_setting_and_a_row_a_member():
    table = {f"{s}/{v}": {"m": Moments(1.0 + i, 0.1, 3)} for s in SETTINGS for i, v in enumerate(VARIANTS)}
    table["clean"] = {"m": one(0.5)}
    del table["p0 s5/ddpm"]
    figure = figures.grid(table, "m", report.best_of(table, "m"))
    panels = [axes for axes in figure.axes if axes.containers]
    assert [axes.get_title() for axes in panels] == SETTINGS
    names = [tick.get_text() for tick in panels[0].get_yticklabels()]
    assert names == ["robust_ran", "robust_adv", "robust_adv_cutoff", "ddpm", "clean"]
    assert [len(axes.containers) for axes in panels] == [4] + [5] * 11
    # x and row of every point of the second panel
    points = {tuple(map(float, np.ravel(c.lines[0].get_xydata()))) for c in panels[1].containers}
    assert points == {(1.0, 3.0), (2.0, 0.0), (3.0, 1.0), (4.0, 2.0), (0.5, 4.0)}
    red = [c.lines[0].get_xydata()[0, 0] for c in panels[1].containers if c.lines[0].get_color() == figures.BEST]
    assert red == [1.0]  # of its own members, not what is shared


def test_a_frontier_joins_the_points_of_a_series():
    table = {f"{s}/{k}": {"a": Moments(k, 0.1, 3), "b": Moments(1.0 / k, 0.2, 3)} for s in ("paper", "cut") for k in (1, 2, 3)}
    table |= {"ddpm": {"a": one(4.0), "b": one(2.0)}, "unfinished": {"a": one(1.0)}}
    (axes,) = figures.frontier(table, "a", "b").axes
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert lines.keys() == {"paper", "cut", "ddpm"}
    np.testing.assert_allclose(lines["cut"].get_xydata(), [[1, 1], [2, 0.5], [3, 1 / 3]])
    assert (lines["cut"].get_linestyle(), lines["ddpm"].get_linestyle()) == ("-", "None")
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"] * 2


def test_a_frontier_by_config_and_metrics_that_only_some_runs_have(tmp_path):
    config = many(("bars", "frontier"), SETTINGS[:2], frontier=("w2", "extra"))
    fabricate(config, tmp_path, lambda label, seed: value(label, seed) | ({"extra": 1.0} if seed and "ran" in label else {}))
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"ablation.png", "frontier.png"}
    assert json.loads((tmp_path / "results.json").read_text())["p0 s5/robust_ran/extra"] == 1.0


@pytest.mark.parametrize(
    ("kind", "stems", "drawn"),
    [
        ("bars", ["ablation"], lambda axes: axes.patches[0].get_width()),
        ("grid", ["grid_w2", "grid_spread_ratio"], lambda axes: axes.lines[0].get_xdata()[0]),
        ("frontier", ["frontier"], lambda axes: axes.lines[0].get_xdata()[0]),
    ],
)
def test_every_kind_of_figure_draws_one_run_alone(kind, stems, drawn):
    config = many((kind,), SETTINGS[:1], frontier=("w2", "spread_ratio"))
    found = report.FIGURES[kind](config, {"a": {"w2": one(0.1), "spread_ratio": one(1.0)}}, {})
    assert [stem for stem, _, _ in found] == stems
    assert drawn(found[0][2].axes[0]) == 0.1


def test_what_is_the_same_for_all_by_construction_has_no_best_and_no_grid():
    numbers = {"w2": 1.0, "network_evaluations": 2.0, "noise_energy_clean": 3.0, "overfitting_pgd10_over_fgsm": 4.0}
    table = {member: {name: one(value + i) for name, value in numbers.items()} for i, member in enumerate("ab")}
    best = {name: report.best_of(table, name)({"a": "a", "b": "b"}) for name in numbers}
    assert best == {"w2": "a", "network_evaluations": None, "noise_energy_clean": None, "overfitting_pgd10_over_fgsm": None}
    table["b"]["w2"] = table["a"]["w2"]
    assert report.best_of(table, "w2")({"a": "a", "b": "b"}) is None
    config = many(("grid",), SETTINGS[:1])
    config.metrics = ("w2", "w2_floor", "network_evaluations")
    table = {"a": {"w2": one(0.1), "w2_floor": one(0.1), "network_evaluations": one(9.0)}}
    assert [stem for stem, _, _ in report.FIGURES["grid"](config, table, {})] == ["grid_w2"]


def test_which_run_is_best_depends_on_the_metric():
    names = ("w2", "spread_ratio", "noise_energy", "noise_energy_clean", "nn_distance_ratio")
    values = {"a": (np.nan, 1.3, 0.2, 0.1, 0.7), "b": (1.0, 1.1, 0.09, 0.1, 0.8), "c": (2.0, 0.5, 0.01, 0.1, 0.9)}
    table = {f"x/{member}": {name: one(v) for name, v in zip(names, row, strict=True)} for member, row in values.items()}
    # An image without any noise energy is no better than one with twice that of clean data.
    for metric, best in (("w2", "b"), ("spread_ratio", "b"), ("noise_energy", "b"), ("nn_distance_ratio", "c")):
        assert [row[0] for row in report.compact(table, metric) if "**" in row[1]] == [best]


def test_a_metric_that_no_run_has_is_warned_of(tmp_path, caplog):
    config = many(("bars",), SETTINGS[:1])
    config.metrics = ("w2", "spread_ratios")
    fabricate(config, tmp_path, value)
    assert "config.metrics: no run has 'spread_ratios'; did you mean spread_ratio?: set some of w2, spread_ratio" in caplog.text


def test_results_of_earlier_versions_are_joined_under_todays_names(tmp_path):
    config = few({"a": {"variant": "robust_adv"}, "b": {"variant": "robust_adv"}})
    names = {"a": "inner_pgd10_over_fgsm", "b": "overfitting_pgd10_over_fgsm"}
    fabricate(config, tmp_path, lambda label, seed: {"w2": 1.0, names[label]: 2.0})
    joint = json.loads((tmp_path / "results.json").read_text())
    assert joint == {f"{label}/{name}": x for label in "ab" for name, x in (("w2", 1.0), ("overfitting_pgd10_over_fgsm", 2.0))}


def test_nothing_finished_yet_is_a_report_all_the_same(tmp_path):
    config = many(settings=SETTINGS[:1])
    assert "Not finished yet: p0 s5/ddpm/seed_0" in summarise(config, expand(config), tmp_path).read_text()


def test_a_finished_list_is_joined_again_without_training(tmp_path, caplog):
    """A run whose config.json and results.json are there is skipped, before its data are read."""
    config = few({"a": {"variant": "ddpm"}})
    (run,) = expand(config)
    workdir.claim(run.config, run.folder(tmp_path), evaluate_only=False)
    (run.folder(tmp_path) / "results.json").write_text('{"w2": 0.5}')
    with caplog.at_level(logging.INFO, "advdiff_jax"):
        run_all(config, tmp_path, "train", "0/1")
    assert "already finished" in caplog.text
    assert "| a | 1 | 0.5 |" in (tmp_path / "table.md").read_text()


def test_a_shard_joins_what_is_judged_though_the_first_seed_is_not(tmp_path, monkeypatch):
    """The other shard judges seed 0 of each label later."""
    runs = expand(few({"a": {"variant": "ddpm"}}, seeds=(0, 1)))
    judged = lambda run, folder, mode: run.folder(folder) / mode if run.seed == 1 else None
    monkeypatch.setattr(sweep_run, "_judged", judged)
    calls = []
    monkeypatch.setattr(sweep_run.compare, "join", lambda *args, **kwargs: calls.append((args, kwargs)))
    sweep_run._join(few({"a": {"variant": "ddpm"}}, seeds=(0, 1)), runs, tmp_path, "certify")
    ((found, out, *_), kwargs) = calls[0]
    assert found == {"a": [tmp_path / "a" / "seed_1" / "certify"]}
    assert (out, kwargs["missing"]) == (tmp_path / "certify", ["a/seed_0"])
