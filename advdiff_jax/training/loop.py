"""The host loop: reads from top to bottom, and never waits for the device on the hot path."""

import contextlib
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
from advdiff_jax.data.wire import Examples
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from advdiff_jax.training.checkpoint import Checkpointer
from advdiff_jax.training.log import MetricsLog
from advdiff_jax.training.plan import Plan


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    examples: Examples,
    init: Callable[[jax.Array], Any],
    plan: Plan,
    optimizer: optax.GradientTransformation,
    title: str,
    on_sample: Callable[[int, Any], None] = lambda step, params: None,
    begin: Callable[[state.TrainState], state.TrainState] = lambda fresh: fresh,
    noise_std: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Trains to `plan.total` steps, from the newest checkpoint under `workdir` if there is one.

    Order of the resume: the step comes from the checkpoint; the batch and every random key are functions of (seed, step),
    so nothing else needs to be restored and the run continues bit for bit.

    Args:
        config: reads `seed`, `train.*`, and of `data` how batches are made (flip, num_workers, read_ahead).
        workdir: existing folder; checkpoints, metrics.jsonl and TensorBoard events go there.
        examples: the training set as the model sees it, [N, ...]; uint8 pictures are converted on the device.
        init: key -> initial parameters.
        plan: pure steps of `training.step`, built with `parallel.average`, and which is done when.
        optimizer: what they were built with.
        title: shown beside the progress.
        on_sample: called with (step, replicated average parameters) every `train.sample_every` steps.
        begin: what a run without a checkpoint makes of the freshly initialised state.
        noise_std: for an oracle, indices [n] -> noise of these examples [n]; the batches are then (examples, noise).

    Raises:
        UserError: the loss is no longer finite, or the checkpoints are damaged.
        KeyboardInterrupt: after the state at the interrupt has been saved.
    """
    cfg = config.train
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    fresh = state.create(jax.jit(init)(init_key), optimizer)
    checkpointer = Checkpointer(workdir / "checkpoints", keep=cfg.keep_checkpoints)
    restored = checkpointer.restore(fresh)
    first_step = int(restored.state.step) if restored else 0
    seconds_before = restored.meta["train_seconds"] if restored else 0.0
    if first_step >= plan.total:
        checkpointer.close()
        return

    replicated = parallel.replicate(restored.state if restored else begin(fresh))
    processes = jax.process_index(), jax.process_count()
    source = BatchSource(examples, cfg.batch_size, config.seed, *processes, flip=config.data.flip, noise_std=noise_std)
    iterator = batches(source, first_step, config.data.num_workers, config.data.read_ahead)
    feed = parallel.shard(iterator)
    first_batch = next(feed)
    compiled, flops = parallel.compile_plan(plan, replicated, step_key, first_batch)

    started = time.perf_counter()

    def save(step):
        seconds = seconds_before + time.perf_counter() - started
        meta = {"train_seconds": seconds, "flops_per_step": flops, "data": {"step": step, "examples": step * cfg.batch_size}}
        checkpointer.save(replicated, meta)

    step, window, window_started = first_step, [], started
    log = MetricsLog(workdir if jax.process_index() == 0 else None, first_step, plan.total, title)
    try:
        with log, _stop_signals() as stop:
            for batch in itertools.chain([first_batch], feed):
                replicated, metrics = compiled[plan.is_full(step)].step(replicated, step_key, batch)
                step += 1
                window.append(metrics)
                if step % cfg.log_every == 0 or step == plan.total:
                    row = _mean(window)  # the only wait for the device, once a window
                    now = time.perf_counter()
                    row["steps_per_second"] = len(window) / (now - window_started)
                    _check_finite(row, step)
                    log.write(step, row)
                    window, window_started = [], now
                if step % cfg.checkpoint_every == 0 or step == plan.total or stop.is_set():
                    _check_finite(_mean([metrics]), step)
                    save(step)
                if stop.is_set():
                    raise KeyboardInterrupt
                if cfg.sample_every and step % cfg.sample_every == 0 and step < plan.total:
                    on_sample(step, replicated.ema_params)
                if step == plan.total:
                    break
    finally:
        iterator.close()
        checkpointer.close()


@contextlib.contextmanager
def _stop_signals():
    """An event that is set by Ctrl-C or by a preemption's SIGTERM; a second signal ends the program at once.

    The step under way is finished first: an exception in its middle would lose the donated state. With several processes
    the signals keep their usual effect, because all would have to stop at the same step; the last checkpoint serves.
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


def _mean(window):
    """Of the steps that have it; `regularizer`, a part of the loss, is 0 in a step without the second term."""
    rows = jax.device_get([parallel.first_replica(metrics) for metrics in window])
    names = dict.fromkeys(name for row in rows for name in row)
    if "regularizer" in names:
        rows = [{"regularizer": 0.0, **row} for row in rows]
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _check_finite(row, step):
    if not math.isfinite(row["loss"]):
        raise UserError(
            f"the loss is {row['loss']} at step {step}: training diverged; lower config.train.learning_rate or "
            "config.train.clip_norm, then start again (checkpoints up to the last finite step are kept)"
        )
