"""A run that is killed, interrupted or damaged on disk ends where the uninterrupted run ends, bit for bit."""

import json
import shutil
import signal
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.training import checkpoint, noise_floor, parallel, state
from advdiff_jax.training.checkpoint import Checkpointer, has_checkpoint, restore_latest
from advdiff_jax.training.log import read_metrics
from configs import plane3d
from tests.launching import TINY, launch, start

RUN = [
    "--config=configs/plane3d.py:robust_adv",
    *TINY,
    "--config.train.steps=900",
    "--config.train.checkpoint_every=100",
    "--config.evaluation.metrics=('plane', 'wasserstein')",
    "--config.evaluation.field_levels=()",
]


def final_state(workdir):
    config = plane3d.get_config("robust_adv")
    config.network.width = 16
    experiment = build_experiment(resolve(config), (3,))
    return restore_latest(workdir, experiment.init, experiment.optimizer).state


def wait_for_step(workdir, step):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        rows = read_metrics(workdir)
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{workdir} did not reach step {step}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert launch(*RUN, f"--workdir={workdir}").returncode == 0
    return workdir


STOPS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 130}  # signal -> status


def test_stopped_and_started_again(tmp_path, uninterrupted):
    """One run is stopped in each way, and started again after each; at the first stop a checkpoint is whole."""
    workdir = tmp_path / "run"
    for step, (number, status) in zip((240, 340, 440), STOPS.items(), strict=True):
        process = start(*RUN, f"--workdir={workdir}")
        wait_for_step(workdir, step)
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == status
        assert "Traceback" not in output
        assert not (workdir / "results.json").exists()
        assert step <= read_metrics(workdir)[-1]["step"] < 900

    again = launch(*RUN, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    found, expected = final_state(workdir), final_state(uninterrupted)
    assert found.step == 900
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    curves = [[(row["step"], row["loss"]) for row in read_metrics(w)] for w in (workdir, uninterrupted)]
    assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]]
    # A window cut by a stop averages fewer steps; all others hold the same numbers.
    assert sum(a != b for a, b in zip(*curves, strict=True)) <= len(STOPS)
    results = [json.loads((w / "results.json").read_text()) for w in (workdir, uninterrupted)]
    for name in ("off_plane_rms", "spread_ratio", "w2"):
        assert results[0][name] == results[1][name], name


# --- damage on disk -------------------------------------------------------------------------------------------------


def small_state(seed):
    values = jax.random.normal(jax.random.key(seed), (64, 64))
    return state.TrainState(np.int32(seed), {"w": values}, (), {"w": 2 * values}, noise_floor.create())


@pytest.fixture
def saved(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpointer.save(parallel.replicate(small_state(step)), {"train_seconds": step / 2})
    checkpointer.close()
    return tmp_path / "checkpoints"


def restore(folder, like=None, **kwargs):
    checkpointer = Checkpointer(folder, **kwargs)
    try:
        return checkpointer.restore(like or small_state(0))
    finally:
        checkpointer.close()


def damage(folder, step, how):
    largest = max((folder / str(step) / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(largest.read_bytes())
    if how == "flipped byte":
        data[len(data) // 2] ^= 0xFF
        largest.write_bytes(data)
    elif how == "truncated":
        largest.write_bytes(data[: len(data) // 2])
    else:
        largest.unlink()


def test_round_trip(saved):
    restored = restore(saved)
    assert restored.meta["train_seconds"] == 1.5
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(small_state(3)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["flipped byte", "truncated", "missing"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(saved, how, caplog):
    damage(saved, 3, how)
    assert restore(saved, read_only=True).state.step == 2
    assert (saved / "3").exists()  # a reader changes nothing
    assert restore(saved).state.step == 2
    assert "/3 is unusable" in caplog.text
    assert (saved / "3.damaged").exists()
    checkpointer = Checkpointer(saved, keep=3)
    checkpointer.save(parallel.replicate(small_state(3)), {"train_seconds": 2.0})
    checkpointer.close()
    assert restore(saved).state.step == 3


def test_the_last_checkpoints_and_every_such_step_are_kept(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=2, keep_every=4)
    for step in range(2, 16, 2):
        checkpointer.save(parallel.replicate(small_state(step)), {})
    checkpointer.close()
    assert sorted(int(child.name) for child in (tmp_path / "checkpoints").iterdir()) == [4, 8, 12, 14]


def test_training_goes_on_while_a_checkpoint_is_verified_and_written(tmp_path, monkeypatch):
    """The state is donated to the next step as soon as `save` returns, before there are any checksums."""
    goes_on, whole = threading.Event(), checkpoint._checksums

    def checksums(host_state):
        assert goes_on.wait(timeout=60)
        return whole(host_state)

    monkeypatch.setattr(checkpoint, "_checksums", checksums)
    checkpointer, run = Checkpointer(tmp_path / "checkpoints"), parallel.replicate(small_state(3))
    checkpointer.save(run, {})
    jax.block_until_ready(jax.pmap(lambda run: jax.tree.map(lambda x: x + 1, run), donate_argnums=0)(run))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(run))
    goes_on.set()
    checkpointer.close()
    restored = restore(tmp_path / "checkpoints").state
    jax.tree.map(np.testing.assert_array_equal, restored, small_state(3))


WRONG = {
    "wrong dtype": (lambda x: x.astype(jnp.float16), "it is of another network or optimiser: .params['w']"),
    "wrong shape": (lambda x: x[:8], "it is of another network or optimiser: .params['w']"),
    "NaN inside": (lambda x: x.at[3, 4].set(jnp.nan), "values that are not finite in .params['w'] and 0 more"),
    "empty step": (None, ""),
    "half-written step": (None, None),  # under Orbax's temporary name: it counts as none
}


@pytest.mark.parametrize("how", WRONG)
def test_a_newest_step_that_is_no_good_is_named_and_the_one_before_used(saved, how, caplog):
    change, reason = WRONG[how]
    if change:
        bad = small_state(4)
        checkpointer = Checkpointer(saved, keep=4)
        checkpointer.save(parallel.replicate(bad._replace(params={"w": change(bad.params["w"])})), {"train_seconds": 9.0})
        checkpointer.close()
    elif how == "empty step":
        (saved / "4").mkdir()
    else:
        shutil.copytree(saved / "3", saved / "4.orbax-checkpoint-tmp")
    restored = restore(saved)
    assert (restored.state.step, restored.meta["train_seconds"]) == (3, 1.5)
    named = [record.getMessage() for record in caplog.records if "/4 is unusable" in record.getMessage()]
    assert len(named) == (reason is not None)
    assert all(reason in line for line in named)
    checkpointer = Checkpointer(saved, keep=4)
    checkpointer.save(parallel.replicate(small_state(4)), {"train_seconds": 2.0})
    checkpointer.close()
    assert restore(saved).state.step == 4


def test_nothing_but_damage_is_the_users_to_mend(saved):
    for step in (1, 2, 3):
        damage(saved, step, "flipped byte")
    with pytest.raises(UserError, match=r"no usable checkpoint in .*checksum mismatch.*remove"):
        restore(saved)
    assert (saved / "3").exists()


def test_a_checkpoint_of_another_network_is_named_as_such(saved):
    other = small_state(0)._replace(params={"w": np.zeros((8, 8), np.float32)})
    with pytest.raises(UserError, match=r"another network.*params.*"):
        restore(saved, like=other)


def test_no_checkpoint_is_not_an_error(tmp_path):
    assert restore(tmp_path / "checkpoints") is None
    assert not has_checkpoint(tmp_path)


def test_a_reader_without_a_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoint: train first \(--mode=train\)"):
        restore_latest(tmp_path, lambda key: {"w": jax.random.normal(key, (2,))}, optax.adam(0.1))


# --- the earlier layout -----------------------------------------------------------------------------------------------


class EarlierState(NamedTuple):
    """`TrainState` as earlier versions named its fields."""

    step: Any
    params: Any
    opt_state: Any
    ema_params: Any
    levels: Any


def test_a_checkpoint_with_the_earlier_field_names_is_restored(tmp_path):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    init = lambda key: {"layer": {"w": jax.random.normal(key, (4, 3)), "b": jnp.zeros(3)}}
    fresh = state.create(init(jax.random.key(0)), optimizer)
    values = jax.tree.map(lambda leaf: (jnp.arange(leaf.size).reshape(leaf.shape) + 2).astype(leaf.dtype), fresh)
    values = values._replace(step=jnp.int32(5))
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    checkpointer.save(parallel.replicate(EarlierState(*values[:5])), {"train_seconds": 7.0})
    checkpointer.close()
    assert has_checkpoint(tmp_path)

    restored = restore_latest(tmp_path, init, optimizer)
    assert restored.meta["train_seconds"] == 7.0
    assert any(name.startswith(".levels.") for name in restored.meta["checksums"])  # it was written under the old name
    assert jax.tree.structure(restored.state) == jax.tree.structure(fresh)
    for (path, found), expected in zip(
        jax.tree_util.tree_leaves_with_path(restored.state), jax.tree.leaves(values), strict=True
    ):
        np.testing.assert_array_equal(found, expected, err_msg=jax.tree_util.keystr(path))

    # A run that goes on from it saves under today's names, and falls back on it.
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    checkpointer.save(parallel.replicate(values._replace(step=jnp.int32(6))), {"train_seconds": 8.0})
    checkpointer.close()
    assert restore_latest(tmp_path, init, optimizer).state.step == 6
    damage(tmp_path / "checkpoints", 6, "truncated")
    assert restore_latest(tmp_path, init, optimizer).state.step == 5
