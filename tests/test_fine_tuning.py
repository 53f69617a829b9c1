"""A finished run made robust: `init_from` starts from its parameters, and from what it measured of the noise."""

import json
import shutil

import jax
import numpy as np
import pytest

from advdiff_jax import builders, earlier, run
from advdiff_jax.errors import UserError
from advdiff_jax.training import levels, state
from configs import plane3d


def tiny(variant):
    config = plane3d.get_config(variant)
    config.train.update({"steps": 60, "batch_size": 128, "warmup_steps": 5, "log_every": 10, "ema_decay": 0.9})
    config.data.num_examples, config.network.width, config.evaluation.num_samples = 500, 16, 64
    config.sampling.steps, config.sampling.batch_size = 4, 8
    config.evaluation.metrics, config.evaluation.field_levels, config.evaluation.looks = ("plane",), (), ()
    return config


def state_of(config, folder):
    return earlier.newest(folder, builders.build(config, (3,))).state


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    run.run(tiny("ddpm"), folder, "train")
    return folder


def losses(folder):
    return [json.loads(line)["denoising"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_fine_tuning_starts_where_the_finished_run_ended(plain, tmp_path):
    config = tiny("robust_fast")
    config.init_from, config.robust.start_step = str(plain), 0.0
    run.run(config, tmp_path / "tuned", "train")
    from_scratch = tiny("robust_fast")
    run.run(from_scratch, tmp_path / "from_scratch", "train")  # its first quarter minimises the same first term
    assert losses(tmp_path / "tuned")[0] < 0.9 * losses(tmp_path / "from_scratch")[0]
    # With no plain steps of its own, the noise floor is the one that the finished run measured.
    before, after = state_of(tiny("ddpm"), plain), state_of(config, tmp_path / "tuned")
    jax.tree.map(np.testing.assert_array_equal, before.levels, after.levels)
    assert levels.is_measured(before.levels)
    first = json.loads((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()[0])
    assert "violation" in first


def test_a_run_that_was_lost_before_its_first_checkpoint_starts_from_there_again(plain, tmp_path):
    config = tiny("robust_adaptive")
    config.init_from, config.robust.start_step = str(plain), 0.0
    (tmp_path / "checkpoints").mkdir()
    experiment = builders.build(config, (3,))
    begun = earlier.begin_from(config, experiment, tmp_path)(
        state.create(experiment.init(jax.random.key(5)), experiment.optimizer)
    )
    wanted = state_of(tiny("ddpm"), plain)
    jax.tree.map(np.testing.assert_array_equal, begun.params, wanted.ema_params)


def test_an_unfinished_run_is_begun_from_with_a_warning(plain, tmp_path, caplog):
    config = tiny("robust_adv")
    config.init_from, config.network.dropout = str(tmp_path / "stopped"), 0.1  # how it was trained may differ
    shutil.copytree(plain, tmp_path / "stopped")
    (tmp_path / "stopped" / "results.json").unlink()
    earlier.begin_from(config, builders.build(config, (3,)), tmp_path)
    assert "is not a finished run" in caplog.text


def test_a_late_start_measures_and_then_regularises(tmp_path):
    config = tiny("robust_adaptive")
    config.robust.start_step, config.robust.every, config.criterion = 0.5, 2, "square"
    run.run(config, tmp_path / "late", "train")
    rows = [json.loads(line) for line in (tmp_path / "late" / "metrics.jsonl").read_text().splitlines()]
    assert ["violation" in row for row in rows] == [False] * 3 + [True] * 3
    for row in rows:  # means over steps with the second term and without
        assert row["loss"] == pytest.approx(row["denoising"] + row.get("regularizer", 0.0), rel=1e-5)
    assert rows[-1]["regularizer"] > 0.0
    results = json.loads((tmp_path / "late" / "results.json").read_text())
    assert results["noise_level"] > 0.0


def test_what_cannot_be_started_from_is_refused(plain, tmp_path):
    config = tiny("robust_adv")
    config.init_from = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere holds no checkpoint yet"):
        run.run(config, tmp_path / "a", "train")
    config.init_from, config.network.width = str(plain), 32
    with pytest.raises(UserError, match=r"another network or process: network.width \(16 there, 32 here\)"):
        run.run(config, tmp_path / "b", "train")
    config = tiny("robust_adv")
    config.init_from, config.data.source = str(plain), "mixture"
    config.evaluation.metrics = ("wasserstein",)
    with pytest.raises(UserError, match=r"init_from=.* cannot be begun from: .*of another network") as error:
        run.run(config, tmp_path / "e", "train")
    assert "remove" not in str(error.value)  # what it would begin from is not ours to throw away
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    config.init_from = str(broken)
    with pytest.raises(UserError, match=r"broken/config\.json is not JSON"):
        run.run(config, tmp_path / "f", "train")
    config = tiny("robust_adaptive")
    run.run(tiny("robust_ran"), tmp_path / "never_plain", "train")
    config.init_from, config.robust.start_step = str(tmp_path / "never_plain"), 0.0
    with pytest.raises(UserError, match="has measured no noise level"):
        run.run(config, tmp_path / "d", "train")
    config.robust.start_step = 0.001  # of 60 steps none
    with pytest.raises(UserError, match="has measured no noise level"):
        run.run(config, tmp_path / "g", "train")
    config.init_from = ""
    with pytest.raises(UserError, match=r"config\.robust\.weight='adaptive' follows what plain steps measure"):
        run.run(config, tmp_path / "c", "train")
