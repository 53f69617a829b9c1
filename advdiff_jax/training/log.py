"""Metrics of a run while it trains: metrics.jsonl, TensorBoard, and a progress bar or plain lines."""

import json
import pathlib
import sys

import tqdm
from tensorboardX import SummaryWriter


class MetricsLog:
    """Writes rows of metrics; a context manager.

    Args:
        workdir: folder of `metrics.jsonl` and the TensorBoard events; None, in processes other than the first: writes nothing.
        first_step: step at which this session starts.
        total_steps: step at which the run ends, for the bar.
        title: name on the bar and on the lines.
    """

    def __init__(self, workdir: pathlib.Path | None, first_step: int, total_steps: int, title: str):
        self._total, self._title, self._file, self._events = total_steps, title, None, None
        interactive = sys.stderr.isatty() and workdir is not None
        self._bar = tqdm.tqdm(total=total_steps, initial=first_step, desc=title, disable=not interactive, unit="step")
        if workdir is not None:
            path = workdir / "metrics.jsonl"
            torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
            self._file = path.open("a", buffering=1)
            if torn:  # a killed run's last line: end it, so that the next row starts a new line
                self._file.write("\n")
            self._events = SummaryWriter(str(workdir), purge_step=first_step)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._bar.close()
        if self._file:
            self._file.close()
            self._events.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Logs one row; `metrics` holds `steps_per_second`, and `loss` unless no update was made."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()  # a killed run keeps its last row
        loss = f"{metrics['loss']:.4f}" if "loss" in metrics else "not finite"
        if self._bar.disable:
            rate, left = metrics["steps_per_second"], (self._total - step) / metrics["steps_per_second"]
            print(f"{self._title}: step {step}/{self._total}  loss {loss}  {rate:.1f} steps/s  {left:.0f} s left", flush=True)
        else:
            self._bar.set_postfix(loss=loss, refresh=False)
            self._bar.update(step - self._bar.n)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Reads metrics.jsonl in order of step, without torn lines; of a step logged twice (a resumed run) the later row counts."""
    path = workdir / "metrics.jsonl"
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            rows[row["step"]] = row
        except (json.JSONDecodeError, TypeError, KeyError):
            continue
    return [rows[step] for step in sorted(rows)]
