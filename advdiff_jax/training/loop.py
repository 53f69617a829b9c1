"""The host loop, which never waits for the device on the hot path."""

import contextlib
import functools
import itertools
import logging
import os
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
from jax.experimental import multihost_utils

from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.data.pixels import Examples
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from advdiff_jax.training.checkpoint import Checkpointer
from advdiff_jax.training.log import MetricsLog
from advdiff_jax.training.step_schedule import StepSchedule

log = logging.getLogger(__name__)

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
    mask: Callable[[np.ndarray], np.ndarray] | None = None,
    pairs: Pairs | None = None,
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
        noise_std: indices [n] -> std of the noise in these examples [n], which batches then hold.
        mask: indices [n] -> masks of these examples [n, H, W, 1], which batches then hold.
        pairs: draws the examples of a batch with their times.

    Raises:
        UserError: training diverged, or the checkpoints are damaged.
        KeyboardInterrupt: after the state at the interrupt has been saved.
    """
    cfg = config.train
    whole = max(step_schedule.total, cfg.steps)  # of a run that measures again, the first call trains a part
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
        mask=mask,
        pairs=pairs,
    )
    iterator = batches(source, first_step, config.data.num_workers, config.data.read_ahead)
    skips = _Skips(cfg.max_skipped, source, checkpointer)
    metrics_log = MetricsLog(workdir if jax.process_index() == 0 else None, first_step, whole, title)
    try:
        feed = parallel.shard(iterator)
        first_batch = next(feed)
        shares = step_schedule.shares()
        compiled = parallel.compile_steps(shares, steps, replicated, step_key, first_batch, micro_batches=cfg.accumulate)
        flops = parallel.mean_flops(compiled)
        clock = _Clock(seconds_before)
        step, window = first_step, []
        with metrics_log, _stop_signals() as stop:
            for batch in itertools.chain([first_batch], feed):
                replicated, metrics = compiled[step_schedule.has_penalty(step)].step(replicated, step_key, batch)
                step += 1
                checkpointer.check()
                window.append(metrics)
                last, stopping = step == step_schedule.total, stop(step)
                sampling = bool(cfg.sample_every) and step % cfg.sample_every == 0 and step < whole
                if step == 1:
                    first_loss = _mean(_rows(window)).get("loss")
                if step % cfg.log_every == 0 or last:
                    rows = _rows(window)  # the only wait for the device, once a window
                    row = _mean(rows) | {"steps_per_second": len(rows) / clock.lap()}
                    metrics_log.write(step, row)
                    skips.check(step, rows)
                    if last:
                        _check_learnt(row, len(rows), first_loss)
                    window = []
                if step % cfg.checkpoint_every == 0 or last or sampling or stopping:
                    meta = {"train_seconds": clock.seconds(), "flops_per_step": flops, "first_loss": first_loss}
                    checkpointer.save(replicated, meta)
                if stopping:
                    raise KeyboardInterrupt
                if sampling:
                    with clock.paused():
                        on_sample(step, replicated, functools.partial(_raise_if, stop, step))
                if last:
                    break
    finally:
        iterator.close()
        checkpointer.close()


class _Clock:
    """Seconds of training, those of earlier sessions included."""

    def __init__(self, seconds_before):
        self._started = time.perf_counter() - seconds_before
        self._lap = time.perf_counter()

    def seconds(self):
        return time.perf_counter() - self._started

    def lap(self):
        """Returns the seconds since the last call."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    @contextlib.contextmanager
    def paused(self):
        """Leaves out what happens inside: drawing samples is not training."""
        began = time.perf_counter()
        yield
        out = time.perf_counter() - began
        self._started, self._lap = self._started + out, self._lap + out


class _Skips:
    """Counts the updates that were skipped in a row, and stops a run that has diverged.

    The counts are read once a window: until then a skipped update has changed nothing.
    """

    def __init__(self, most, source, checkpointer):
        self._most, self._source, self._checkpointer, self._in_a_row = most, source, checkpointer, 0

    def check(self, step, rows):
        """Takes the metrics of the steps up to `step`; raises UserError after `train.max_skipped` skips in a row."""
        skipped = int(sum(row["skipped"] for row in rows))
        if skipped:
            log.warning("step %d: %d of the last %d updates were not finite, and were skipped", step, skipped, len(rows))
        for number, row in enumerate(rows, start=step - len(rows)):
            self._in_a_row = self._in_a_row + 1 if row["skipped"] else 0
            if self._in_a_row == self._most:
                self._stop(number)

    def _stop(self, number):
        first = number - self._most + 1
        examples = ", ".join(map(str, self._source.indices(first)[:8]))
        good = self._checkpointer.latest_step()
        raise UserError(
            f"training diverged: {self._most} updates in a row were not finite, from step {first + 1} on, whose batch begins "
            f"with the examples {examples}; the last good checkpoint is of step {good or 0}: lower "
            "config.train.learning_rate or config.train.clip_norm, and go on from there with "
            "--config.train.accept_changes=True"
        )


@contextlib.contextmanager
def _stop_signals():
    """Yields stop(step): whether Ctrl-C or a preemption's SIGTERM has come. A second signal ends the program at once.

    The step under way is finished first, because an exception inside it would lose the donated state. Several processes must
    stop at the same step: JAX's preemption service, which takes SIGTERM, carries the notice to all of them and names the step.
    Ctrl-C becomes SIGTERM there.
    """
    several, stopped, previous = jax.process_count() > 1, threading.Event(), {}

    def on_signal(number, frame):
        stopped.set()
        signal.signal(number, signal.default_int_handler)

    def on_interrupt(number, frame):
        signal.signal(number, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGTERM)

    if threading.current_thread() is threading.main_thread():
        handlers = {signal.SIGINT: on_interrupt} if several else {signal.SIGINT: on_signal, signal.SIGTERM: on_signal}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield multihost_utils.reached_preemption_sync_point if several else lambda step: stopped.is_set()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_if(stop, step):
    """Raises KeyboardInterrupt if the run is to stop; several processes, which sample together, go on to the next step."""
    if jax.process_count() == 1 and stop(step):
        raise KeyboardInterrupt


def _rows(window):
    return jax.device_get([parallel.first_replica(metrics) for metrics in window])


def _mean(rows):
    """Averages each metric over the updates that were made; `penalty`, a part of the loss, counts as 0 in plain steps.

    `skipped` is the number of the others; without any update it is all that there is.
    """
    made = [row for row in rows if not row["skipped"]]
    names = dict.fromkeys(name for row in made for name in row)
    if "penalty" in names:
        made = [{"penalty": 0.0, **row} for row in made]
    means = {name: float(np.mean([row[name] for row in made if name in row])) for name in names}
    return means | {"skipped": len(rows) - len(made)}


def _check_learnt(row, updates, first_loss):
    """Raises UserError if half of the last window's updates were skipped, or for a loss far above that of predicting zero."""
    if 2 * row["skipped"] >= updates:
        found = f"{row['skipped']} of the last {updates} updates were not finite"
    elif first_loss is not None and row["loss"] > DIVERGED * first_loss:
        found = f"the loss is {row['loss']:.3g} at the last step, and was {first_loss:.3g} at the first, which predicts zero"
    else:
        return
    raise UserError(
        f"training diverged: {found}; lower config.train.learning_rate or config.train.clip_norm, and name another --workdir"
    )
