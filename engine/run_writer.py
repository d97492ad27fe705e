"""The run's own listener: puts events into its files, and never disturbs the training for it.

Steps go to `metrics.jsonl`, other events to `events.jsonl`, a line for people to `log.txt`, the
latest figures to `status.json`. Lines are gathered and written at most once a second, with one
write a file; nothing waits for the disk but the run's last word. Between events another thread
calls `beat`, so that the status stays fresh while the loop is silent. A write that fails (disk
full, file system gone) is reported once by `on_trouble`, and what could not be written is kept, up
to a bound, and tried again.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from engine.events import (
    Alert,
    CheckpointDeleted,
    CheckpointSaved,
    ControlApplied,
    DeviceStats,
    EvalDone,
    EvalProgress,
    Event,
    Failed,
    Finished,
    Paused,
    Phase,
    Preparing,
    Resumed,
    RolledBack,
    RunStarted,
    SampleDone,
    StepDone,
    TokenGenerated,
    to_json,
)
from engine.metrics import EVENTS_FILE, METRICS_FILE
from engine.plain_file import open_plain, open_to_write
from engine.pulse import Pulse
from engine.status import ACTIVE, own_status, read_status, write_status
from engine.text import visible

LOG_FILE = "log.txt"
FLUSH_SECONDS = 1.0
LOG_STEP_SECONDS = 10.0
MAX_KEPT = 16 << 20  # bytes of a file's lines that wait for a disk to recover

_PASSING = (TokenGenerated, EvalProgress, DeviceStats, Preparing, Phase)
_MOVES = (
    RunStarted, Phase, StepDone, EvalProgress, EvalDone, TokenGenerated, SampleDone, ControlApplied
)  # fmt: skip
"""Said by the loop itself: it is not stuck. Alerts and load may come from any thread."""


class Appender:
    """Lines for one file, written in one go; a torn write is mended by the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        self._mend = _torn(path)

    def add(self, line: str) -> None:
        self._waiting.append(line.encode("utf-8", "surrogatepass") + b"\n")

    def flush(self) -> None:
        """Append what waits. Raises OSError; what was not written waits on."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        if len(data) > MAX_KEPT:  # the disk has failed for long: the oldest lines are given up
            data, self._mend = data[-MAX_KEPT:].partition(b"\n")[2], True
        self._waiting = [data]
        descriptor = open_to_write(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if self._mend:  # the torn line stands alone, and readers pass over it
                os.write(descriptor, b"\n")
                self._mend = False
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        self._waiting = [data[written:]] if written < len(data) else []


def _torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line (its writer was killed while writing)."""
    try:
        with open_plain(path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


class HasPath(Protocol):
    path: Path


class RunWriter:
    """An event listener: `writer(event)` from any thread. Never raises OSError."""

    def __init__(
        self, folder: HasPath, on_trouble: Callable[[str, str], None] = lambda title, hint: None
    ) -> None:
        """Says at once in the run's status that this process runs it.

        `on_trouble(title, hint)` is called when writing begins to fail, and when it works again.
        """
        run_path = folder.path
        self._path, self._on_trouble = run_path, on_trouble
        self._metrics = Appender(run_path / METRICS_FILE)
        self._events = Appender(run_path / EVENTS_FILE)
        self._log = Appender(run_path / LOG_FILE)
        self._before = read_status(run_path)  # of an earlier process, when this one resumes
        self._status = own_status()
        self._flushed = self._logged_step = -math.inf
        self._started = time.monotonic()
        self._failing = False
        self._pulse = Pulse()
        self._lock = threading.RLock()
        self.flush()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, _MOVES):
                self._pulse.move()
            if isinstance(event, StepDone):
                self._step(event)
                self._flush_if_due()
            elif isinstance(event, Phase) and event.phase == "saving":
                self._pass(event)
                self.flush()  # whoever resumes from this save finds every step before it
            elif isinstance(event, _PASSING):
                self._pass(event)
                self._flush_if_due()
            else:
                self._note(event)
                self._events.add(to_json(event))
                line = describe(event)
                if line:
                    self._log_line(event.time, line)
                self.flush(durable=isinstance(event, Finished | Failed))

    def beat(self) -> None:
        """From any thread, as often as one likes: keep the files fresh, at most once a second."""
        if time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        # Whoever holds the lock is writing: then the files are fresh without this.
        if self._lock.acquire(blocking=False):
            try:
                if self._status.state in ACTIVE:
                    self._flush_if_due()
            finally:
                self._lock.release()

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def _pass(self, event: Event) -> None:
        """What is not kept shows in the status while it lasts."""
        status = self._status
        if isinstance(event, Phase):
            status.phase, status.phase_done, status.phase_total = event.phase, 0, 0
        elif isinstance(event, EvalProgress):
            status.phase_done, status.phase_total = event.done, event.total
        elif isinstance(event, DeviceStats):
            status.used_bytes, status.peak_bytes = event.used, event.peak
            status.total_bytes, status.reserved_bytes = event.total, event.reserved
            status.utilization, status.temperature = event.utilization, event.temperature
            status.power = event.power

    def _step(self, event: StepDone) -> None:
        self._metrics.add(to_json(event))
        self._pulse.step(event.step)
        status = self._status
        status.step, status.tokens, status.loss = event.step, event.tokens, event.loss
        if event.val_loss is not None:
            self._scored(event.step, event.val_loss)
        status.seconds = time.monotonic() - self._started
        if time.monotonic() - self._logged_step >= LOG_STEP_SECONDS:
            self._logged_step = time.monotonic()
            rate = f"{event.tokens_per_second:,.0f} tokens/s"
            self._log_line(
                event.time,
                f"step {event.step:,}  loss {event.loss:.4f}  lr {event.lr:.2e}  {rate}",
            )

    def _note(self, event: Event) -> None:
        """What the event changes in the run's status."""
        status = self._status
        if isinstance(event, RunStarted):
            status.state, status.step, status.tokens = "running", event.step, event.tokens
            status.max_steps, status.n_parameters = event.max_steps, event.n_parameters
            status.device = event.device_name or event.device
            if event.resumed:
                self._carry_on(event.step)
        elif isinstance(event, EvalDone):
            self._metrics.add(
                json.dumps({"step": event.step, "val_loss": event.val_loss, "time": event.time})
            )
            self._scored(event.step, event.val_loss)
        elif isinstance(event, Paused):
            status.state = status.phase = "paused"
            self._pulse.rest()
        elif isinstance(event, Resumed):
            status.state, status.phase = "running", "training"
            self._pulse.rest()
        elif isinstance(event, RolledBack):
            self._metrics.add(json.dumps({"resumed": event.step}))
            status.step = event.step
        elif isinstance(event, Finished):
            status.state = "finished" if event.reason == "completed" else "stopped"
            status.reason, status.step, status.tokens = event.reason, event.step, event.tokens
            status.phase = ""
        elif isinstance(event, Failed):
            status.state, status.error, status.phase = "failed", event.title, ""

    def _scored(self, step: int, val_loss: float) -> None:
        status = self._status
        status.val_loss = val_loss
        best = status.best_val_loss
        if math.isfinite(val_loss) and (best is None or val_loss < best):
            status.best_val_loss, status.best_step = val_loss, step

    def _carry_on(self, step: int) -> None:
        """On a resume at `step`: what was measured up to there still holds, the rest does not."""
        self._metrics.add(json.dumps({"resumed": step}))
        before, status = self._before, self._status
        self._started = time.monotonic() - before.seconds
        if before.best_step is not None and before.best_step <= step:
            status.best_val_loss, status.best_step = before.best_val_loss, before.best_step
        if before.step <= step:
            status.loss, status.val_loss = before.loss, before.val_loss

    def _log_line(self, when: float, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        self._log.add(f"{stamp}  {visible(line)}")

    def flush(self, *, durable: bool = False) -> None:
        """Write what waits, now."""
        with self._lock:
            self._flush(durable)

    def _flush(self, durable: bool) -> None:
        status, pulse = self._status, self._pulse
        self._flushed = time.monotonic()
        status.advanced, status.moved = pulse.moved_at(), pulse.moved
        status.step_seconds, status.report_seconds = pulse.step_seconds, pulse.report_seconds
        try:
            self._metrics.flush()
            self._events.flush()
            self._log.flush()
            write_status(self._path, self._status, durable=durable)
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._on_trouble(
                    f"the run's files cannot be written: {error.strerror}",
                    f"training goes on; make room or access for '{self._path}'",
                )
        else:
            if self._failing:
                self._failing = False
                self._on_trouble("the run's files can be written again", "")

    def close(self) -> None:
        """Write what waits. A run without a last word (Finished, Failed) was stopped."""
        with self._lock:
            if self._status.state in ACTIVE:
                self._status.state, self._status.phase = "stopped", ""
            self.flush(durable=True)


def describe(event: Event) -> str:
    """The event as one line for people; empty for those that a log does not need."""
    match event:
        case RunStarted():
            verb = f"resumed at step {event.step:,}" if event.resumed else "started"
            return f"{verb}: {event.run}, {event.n_parameters:,} parameters on {event.device_name}"
        case EvalDone():
            best = "  best" if event.best else ""
            return f"step {event.step:,}  validation loss {event.val_loss:.4f}{best}"
        case SampleDone():
            text = event.error or (event.prompt + event.text)
            return f"step {event.step:,}  sample: {text}"
        case CheckpointSaved():
            return f"step {event.step:,}  saved ({event.kind}, {event.bytes / 1e6:.1f} MB)"
        case CheckpointDeleted():
            return f"checkpoint of step {event.step:,} deleted"
        case ControlApplied():
            change = f": {event.before} → {event.after}" if event.before != event.after else ""
            return f"step {event.step:,}  {event.command}{change} (by {event.who})"
        case Paused():
            return f"step {event.step:,}  paused"
        case Resumed():
            return f"step {event.step:,}  goes on"
        case RolledBack():
            return f"step {event.from_step:,}  rolled back to step {event.step:,}: {event.reason}"
        case Alert():
            return f"{event.level}: {event.title}" + (f" ({event.hint})" if event.hint else "")
        case Finished():
            return f"step {event.step:,}  {event.reason} after {event.seconds:.1f} s"
        case Failed():
            return f"failed: {event.title}" + (f"\n{event.traceback}" if event.traceback else "")
    return ""
