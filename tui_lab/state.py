"""The state of one run, folded from its events. Plain: no Textual, no torch, no clock of its own.

The screens read it; the trainer's events, or the lines of a run's files, are all that fills it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from engine import events as ev
from engine.config.schema import Config
from tui_lab.series_store import Series

EVENT_LINES = 500
MOST_POINTS = 4_000
"""Validation points and marks that are kept; beyond it every second one of the older half goes."""
SAID = {"Pause": "paused", "Resume": "resumed", "Stop": "stopping", "Step": "one step"}
SAID |= {"SaveNow": "save", "EvalNow": "evaluation", "Sample": "sample", "SetLearningRate": "lr"}
"""Commands in the event log, where little room is left beside who asked."""
STATUSES = ("preparing", "training", "paused", "finished", "failed")


@dataclass(frozen=True)
class Line:
    """One line of the event log. `level`: info, good, warning, error."""

    time: float
    step: int
    level: str
    text: str


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, drawn on the chart. `kind`: saved, rate, alert."""

    step: int
    kind: str


class RunState:
    """`apply` takes events in order and never raises; everything else is read.

    `smoothing`: points that the bright curve averages over; 0 derives it from the run's length.
    `me`: who this reader is where commands are recorded; `elsewhere`: another process trains.
    """

    me = "user"
    elsewhere = False

    def __init__(self, config: Config | None = None, preset: str = "", smoothing: int = 0) -> None:
        self.config = config
        self.preset = preset
        self.smoothing = smoothing
        self.status = "preparing"
        self.phase = ""  # what the loop is doing besides training: evaluating, sampling, …
        self.detail = ""
        self.what = "Starting"  # the preparation in hand
        self.done = self.total = 0  # of a preparation or an evaluation
        self.started: ev.RunStarted | None = None
        self.run = ""
        self.path = ""
        self.step = self.tokens = self.max_steps = 0
        self.epoch = 0.0
        self.last: ev.StepDone | None = None
        self.evaluation: ev.EvalDone | None = None
        self.best: ev.EvalDone | None = None
        self.sample: ev.SampleDone | None = None
        self.device: ev.DeviceStats | None = None
        self.checkpoint: ev.CheckpointSaved | None = None
        self.finished: ev.Finished | None = None
        self.failed: ev.Failed | None = None
        self.stopping = False
        self.asked = ""  # what somebody asked for and the run has not done yet
        self.series = Series()
        self.validation: list[tuple[float, float]] = []
        self.marks: list[Mark] = []
        self.lines: deque[Line] = deque(maxlen=EVENT_LINES)
        self.version = 0  # counts applied events: a reader that saw this number has seen it all
        self.first_time = 0.0  # of the first event, and
        self.time = 0.0  # of the newest one
        self.begun: tuple[float, int] | None = None  # time and step when the loop began

    @property
    def live(self) -> bool:
        return self.status not in ("finished", "failed")

    @property
    def name(self) -> str:
        """What to call the run: its folder's name, or the preset while there is none yet."""
        return self.run or self.preset or "run"

    @property
    def corpus(self) -> str:
        return self.config.data.corpus if self.config else ""

    @property
    def smooth(self) -> float | None:
        """The newest smoothed loss."""
        return self.series.average

    @property
    def seconds(self) -> float:
        """How long the run has trained in this process, by the events' own clock."""
        return max(0.0, self.time - self.begun[0]) if self.begun else 0.0

    @property
    def progress(self) -> float:
        """Share of the planned steps, 0 to 1."""
        return min(1.0, self.step / self.max_steps) if self.max_steps else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to the planned end at the recent rate; None when nothing tells."""
        if not (self.started and self.max_steps and self.last) or not self.live:
            return None
        rates = [r for r in self.series.rate[-50:] if math.isfinite(r) and r > 0]
        if not rates or not self.started.tokens_per_step:
            return None
        rate = sorted(rates)[len(rates) // 2]
        return (self.max_steps - self.step) * self.started.tokens_per_step / rate

    @property
    def perplexity(self) -> float | None:
        """Of the validation loss, where there is one."""
        return self.evaluation.perplexity if self.evaluation else None

    def lr_scale(self) -> float:
        """The last rate against the schedule's own: 1 unless somebody changed it."""
        if not (self.last and self.config and self.max_steps):
            return 1.0
        from engine.schedule import learning_rate

        step, config = max(0, self.last.step - 1), self.config
        planned = learning_rate(step, config.schedule, config.optimizer.lr, self.max_steps)
        scale = self.last.lr / planned if planned else 1.0
        return 1.0 if abs(scale - 1.0) < 1e-3 else scale

    def span(self) -> int:
        """Points that the bright curve averages over."""
        if self.smoothing:
            return self.smoothing
        every = self.config.train.log_every if self.config else 1
        return min(200, max(10, self.max_steps // (every * 60)))

    def ask(self, what: str) -> None:
        """Remember what was asked for until the run answers: steps can be slow."""
        self.asked = what
        self.version += 1

    def apply(self, event: ev.Event) -> None:
        """Take one event in. Kinds that this version does not know change nothing but the time."""
        self.version += 1
        self.time = max(self.time, event.time)
        self.first_time = self.first_time or event.time
        handler = getattr(self, f"_on_{event.name}", None)
        if handler is not None:
            handler(event)

    def preload(self, past: RunState) -> None:
        """Put the past of a resumed run, folded from its files, before what is there already."""
        now = self.series
        self.series = past.series
        for row in zip(now.step, now.loss, now.lr, now.grad_norm, now.rate, strict=True):
            self.series.add(*row, self.span())
        self.validation[:0] = past.validation
        self.marks[:0] = past.marks
        if past.best and (self.best is None or past.best.val_loss <= self.best.val_loss):
            self.best = past.best
        self.version += 1

    def _go_back(self, step: int) -> None:
        """The run goes on from its checkpoint at `step`: what came after it never was."""
        self.series.drop_from(step + 1)
        self.validation = [point for point in self.validation if point[0] <= step]
        self.marks = [mark for mark in self.marks if mark.step <= step]
        if self.best is not None and self.best.step > step:
            self.best = None

    # One method an event, in the order of a run's life.

    def _on_preparing(self, event: ev.Preparing) -> None:
        self.status, self.what = "preparing", event.what
        self.done, self.total = event.done, event.total

    def _on_run_started(self, event: ev.RunStarted) -> None:
        self.started, self.status = event, "training"
        self.run, self.path = event.run, event.path
        self.step, self.tokens, self.max_steps = event.step, event.tokens, event.max_steps
        self.time = event.time  # of this process alone: a former one's clock may have been ahead
        self.begun = (event.time, event.step)
        self.finished = self.failed = None
        self.stopping, self.asked = False, ""
        self._go_back(event.step)
        self.done = self.total = 0
        if self.config is None:
            self.config = _config(event.config)
        verb = f"resumed at step {event.step}" if event.resumed else "started"
        self._log(event, "info", f"{event.run} {verb} on {event.device_name or event.device}")

    def _on_phase(self, event: ev.Phase) -> None:
        self.phase = "" if event.phase in ("training", "paused") else event.phase
        self.detail = event.detail
        self.done = self.total = 0

    def _on_step_done(self, event: ev.StepDone) -> None:
        if self.last and math.isfinite(self.last.loss) and not math.isfinite(event.loss):
            self._mark(event.step, "alert")
            self._log(event, "error", f"the loss is {event.loss}")
        self.last = event
        self.step, self.tokens, self.epoch = event.step, event.tokens, event.epoch
        self._point(event)

    def _on_device_stats(self, event: ev.DeviceStats) -> None:
        self.device = event

    def _on_eval_progress(self, event: ev.EvalProgress) -> None:
        self.phase, self.done, self.total = "evaluating", event.done, event.total

    def _on_eval_done(self, event: ev.EvalDone) -> None:
        self.phase, self.done, self.total = "", 0, 0
        self._score(event)
        word = "good" if event.best else "info"
        best = " best" if event.best else ""
        self._log(event, word, f"validation {event.val_loss:.3f}{best}")

    def _on_sample_done(self, event: ev.SampleDone) -> None:
        if event.request.startswith("console"):
            return  # the console's own; its text is already there
        if event.error:
            self._log(event, "error", f"sample: {event.error}")
            return
        self.sample = event

    def _on_checkpoint_saved(self, event: ev.CheckpointSaved) -> None:
        self.checkpoint = event
        self._mark(event.step, "saved")
        self._log(event, "info", f"saved step {event.step} ({event.kind})")

    def _on_control_applied(self, event: ev.ControlApplied) -> None:
        self.asked = ""
        if event.command == "SetLearningRate":
            self._mark(event.step, "rate")
        if event.who != self.me:
            word = SAID.get(event.command, event.command)
            change = f" {event.before} → {event.after}" if word == "lr" else ""
            self._log(event, "info", f"{word}{change} by {event.who}")
        elif event.command == "SetLearningRate":
            self._log(event, "info", f"learning rate {event.before} → {event.after}")
        elif event.command in ("Pause", "Resume", "Stop"):
            self._log(event, "info", f"{SAID[event.command]} at step {event.step}")

    def _on_rolled_back(self, event: ev.RolledBack) -> None:
        self._go_back(event.step)
        self._log(event, "warning", f"back to step {event.step}: {event.reason}")

    def _on_paused(self, event: ev.Paused) -> None:
        self.status, self.step = "paused", event.step

    def _on_resumed(self, event: ev.Resumed) -> None:
        self.status = "training"

    def _on_alert(self, event: ev.Alert) -> None:
        if event.level != "info":
            self._mark(event.step, "alert")
        text = f"{event.title} · {event.hint}" if event.hint else event.title
        self._log(event, event.level, text)

    def _on_finished(self, event: ev.Finished) -> None:
        self.status, self.finished, self.phase = "finished", event, ""
        self.step, self.tokens = event.step, event.tokens
        self.run = event.run or self.run
        self._log(event, "good", f"{event.reason} at step {event.step}")

    def _on_failed(self, event: ev.Failed) -> None:
        self.status, self.failed, self.phase = "failed", event, ""
        self.run = event.run or self.run
        self._log(event, "error", event.title)

    def _point(self, event: ev.StepDone) -> None:
        self.series.add(
            event.step, event.loss, event.lr, event.grad_norm, event.tokens_per_second, self.span()
        )

    def _score(self, event: ev.EvalDone) -> None:
        self.evaluation = event
        if math.isfinite(event.val_loss):
            del self.validation[bisect_left(self.validation, (event.step,)) :]
            self.validation.append((event.step, event.val_loss))
            _bound(self.validation)
            if self.best is None or event.val_loss < self.best.val_loss:
                self.best = event

    def _mark(self, step: int, kind: str) -> None:
        mark = Mark(step, kind)
        if mark not in self.marks[-3:]:
            self.marks.append(mark)
            _bound(self.marks)

    def _log(self, event: ev.Event, level: str, text: str) -> None:
        self.lines.append(Line(event.time, getattr(event, "step", self.step), level, text))


def _bound(items: list) -> None:
    """Thin the older half of a list that has become too long."""
    if len(items) > MOST_POINTS:
        del items[1 : len(items) // 2 : 2]


def _config(text: str) -> Config | None:
    """The configuration that a run tells of itself; None when it is not to be read."""
    import tomllib

    from engine.config.schema import from_dict
    from engine.errors import ConfigError

    try:
        return from_dict(tomllib.loads(text), "the run's configuration")
    except (tomllib.TOMLDecodeError, ConfigError):
        return None
