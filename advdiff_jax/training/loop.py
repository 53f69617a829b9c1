"""The host loop, which never waits for the device on the hot path."""

import contextlib
import functools
import itertools
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from advdiff_jax.training.checkpoint import Checkpointer
from advdiff_jax.training.log import MetricsLog
from advdiff_jax.training.step_schedule import StepSchedule

DIVERGED = 100.0  # times the loss of the first step: heavy-tailed losses vary by less from batch to batch


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    examples: Examples,
    init: Callable[[jax.Array], Any],
    step_schedule: StepSchedule,
    steps: dict[bool, Callable],
    optimizer: optax.GradientTransformation,
    title: str,
    on_sample: Callable[[int, Any, Callable[[], None]], None] = lambda step, replicated, between: None,
    warm_start: Callable[[state.TrainState], state.TrainState] = lambda fresh: fresh,
    noise_std: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Trains to `step_schedule.total` steps, from the newest checkpoint under `workdir` if there is one.

    A resumed run takes the state, with its step, from the checkpoint. The batch and every random key are functions of
    (seed, step), so nothing else needs to be restored and the run continues bit for bit.

    Args:
        config: reads `seed`, `train.*`, and how batches are made: `data.flip`, `data.num_workers`, `data.read_ahead`.
        workdir: existing folder; checkpoints, metrics.jsonl and TensorBoard events go there.
        examples: the training set as the model sees it, [N, ...]; uint8 images are converted on the device.
        init: key -> initial parameters.
        step_schedule: the number of steps, and which of them have the penalty.
        steps: whether a step has the penalty -> the pure step of `training.step`, built with `parallel.average`.
        optimizer: initialises the state; its state has the layout of the steps' optimisers.
        title: shown beside the progress.
        on_sample: called with (step, replicated state, between) every `train.sample_every` steps, after a
            checkpoint. It calls `between()` now and then, which raises KeyboardInterrupt once the run is to stop.
        warm_start: initial state -> the state from which a run without a checkpoint starts.
        noise_std: for an oracle, indices [n] -> std of the noise in these examples [n], which batches then hold.

    Raises:
        UserError: the loss is no longer finite, or the checkpoints are damaged.
        KeyboardInterrupt: after the state at the interrupt has been saved.
    """
    cfg = config.train
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    step_key = parallel.on_every_device(step_key)
    fresh = state.create(jax.jit(init)(init_key), optimizer, len(cfg.more_ema_decays))
    checkpointer = Checkpointer(workdir / "checkpoints", cfg.keep_checkpoints, cfg.keep_every)
    restored = checkpointer.restore(fresh)
    first_step = int(restored.state.step) if restored else 0
    seconds_before = restored.meta["train_seconds"] if restored else 0.0
    first_loss = restored.meta.get("first_loss") if restored else None
    if first_step >= step_schedule.total:
        checkpointer.close()
        return

    replicated = parallel.replicate(restored.state if restored else warm_start(fresh))
    source = BatchSource(
        examples,
        cfg.batch_size,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        flip=config.data.flip,
        noise_std=noise_std,
    )
    iterator = batches(source, first_step, config.data.num_workers, config.data.read_ahead)
    feed = parallel.shard(iterator)
    first_batch = next(feed)
    compiled = parallel.compile_steps(
        step_schedule.shares(), steps, replicated, step_key, first_batch, micro_batches=cfg.accumulate
    )
    flops = parallel.mean_flops(compiled)

    started = time.perf_counter()

    def save(step):
        seconds = seconds_before + time.perf_counter() - started
        checkpointer.save(replicated, {"train_seconds": seconds, "flops_per_step": flops, "first_loss": first_loss})

    step, window, window_started = first_step, [], started
    log = MetricsLog(workdir if jax.process_index() == 0 else None, first_step, step_schedule.total, title)
    try:
        with log, _stop_signals() as stop:
            for batch in itertools.chain([first_batch], feed):
                replicated, metrics = compiled[step_schedule.has_penalty(step)].step(replicated, step_key, batch)
                step += 1
                window.append(metrics)
                if step == 1:
                    first_loss = _mean([metrics])["loss"]
                if step % cfg.log_every == 0 or step == step_schedule.total:
                    row = _mean(window)  # the only wait for the device, once a window
                    now = time.perf_counter()
                    row["steps_per_second"] = len(window) / (now - window_started)
                    _check_finite(row, step)
                    log.write(step, row)
                    if step == step_schedule.total:
                        _check_learnt(row, first_loss)
                    window, window_started = [], now
                if step % cfg.checkpoint_every == 0 or step == step_schedule.total or stop.is_set():
                    _check_finite(_mean([metrics]), step)
                    save(step)
                _raise_if(stop)
                if cfg.sample_every and step % cfg.sample_every == 0 and step < step_schedule.total:
                    save(step)
                    on_sample(step, replicated, functools.partial(_raise_if, stop))
                if step == step_schedule.total:
                    break
    finally:
        iterator.close()
        checkpointer.close()


@contextlib.contextmanager
def _stop_signals():
    """Yields an event that Ctrl-C or a preemption's SIGTERM sets; a second signal ends the program at once.

    The step under way is finished first, because an exception inside it would lose the donated state. With several processes
    the signals keep their usual effect, because all processes would have to stop at the same step; the run then resumes from
    the last checkpoint.
    """
    stop, previous = threading.Event(), {}

    def on_signal(number, frame):
        stop.set()
        signal.signal(number, signal.default_int_handler)

    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_if(stop):
    if stop.is_set():
        raise KeyboardInterrupt


def _mean(window):
    """Averages each metric over the steps that have it; `penalty`, a part of the loss, counts as 0 in plain steps."""
    rows = jax.device_get([parallel.first_replica(metrics) for metrics in window])
    names = dict.fromkeys(name for row in rows for name in row)
    if "penalty" in names:
        rows = [{"penalty": 0.0, **row} for row in rows]
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _check_learnt(row, first_loss):
    """Raises UserError for a loss far above that of the first step, whose network predicts zero."""
    if first_loss is not None and row["loss"] > DIVERGED * first_loss:
        raise UserError(
            f"training diverged: the loss is {row['loss']:.3g} at the last step, and was {first_loss:.3g} at the first; lower "
            "config.train.learning_rate or config.train.clip_norm, and name another --workdir"
        )


def _check_finite(row, step):
    if not math.isfinite(row["loss"]):
        raise UserError(
            f"the loss is {row['loss']} at step {step}: training diverged; lower config.train.learning_rate or "
            "config.train.clip_norm, then start again (checkpoints up to the last finite step are kept)"
        )
