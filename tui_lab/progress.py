"""How a headless run is told to people: plain lines when piped, a live bar on a terminal."""

from __future__ import annotations

import sys
import time

from engine import events
from engine.text import visible
from tui_lab import format as fmt

LINE_SECONDS = 5.0
"""Between two progress lines of a piped run: enough to follow, few enough to keep."""


def describe(event: events.Event, show_samples: bool) -> list[str]:
    """The lines that an event is worth; steps and passing phases are worth none."""
    match event:
        case events.RunStarted():
            word = f"resumed at step {event.step}" if event.resumed else "started"
            return [
                f"run {event.run} {word}: {fmt.count(event.n_parameters)} parameters, "
                f"{fmt.count(event.train_tokens)} training tokens, vocabulary {event.vocab_size}, "
                f"{event.device_name}, {event.precision}, {event.max_steps} steps"
            ]
        case events.EvalDone():
            best = " (best)" if event.best else ""
            bits = "" if event.bits_per_byte is None else f"  bits/byte {event.bits_per_byte:.3f}"
            return [
                f"step {event.step}  validation loss {fmt.number(event.val_loss)}{best}"
                f"  perplexity {event.perplexity:.2f}{bits}"
            ]
        case events.SampleDone():
            if event.error:
                return [f"sample at step {event.step} failed: {event.error}"]
            if not show_samples:
                return []
            text = event.prompt + event.text
            return [f"sample at step {event.step}:", *(f"  {line}" for line in text.splitlines())]
        case events.CheckpointSaved():
            about = f"{fmt.size(event.bytes)}, {event.kind}"
            return [f"step {event.step}  saved {event.path} ({about})"]
        case events.Alert():
            hint = f" ({event.hint})" if event.hint else ""
            return [f"{event.level}: {event.title}{hint}"]
        case events.ControlApplied():
            change = f": {event.before} → {event.after}" if event.after else ""
            return [f"step {event.step}  {event.command} by {event.who}{change}"]
        case events.Finished():
            return _summary(event)
    return []


def _summary(event: events.Finished) -> list[str]:
    best = ""
    if event.best_val_loss is not None:
        best = f"; best validation loss {event.best_val_loss:.4f} at step {event.best_step}"
    kept = f"checkpoint {event.checkpoint}" if event.checkpoint else "no checkpoint kept"
    return [
        f"{event.reason} at step {event.step} after {fmt.duration(event.seconds)} of training, "
        f"{fmt.count(event.tokens)} tokens{best}",
        f"{kept}; talk to it: tui-lab generate {event.run}" if event.checkpoint else kept,
    ]


def step_line(step: events.StepDone, total: int, left: float) -> str:
    """One step as a plain line."""
    mfu = "" if step.mfu is None else f"  MFU {fmt.percent(step.mfu)}"
    experts = ""
    if step.expert_busiest is not None and step.expert_idlest is not None:
        experts = f"  experts {step.expert_idlest:.2g}x-{step.expert_busiest:.2g}x"
    return (
        f"step {step.step}/{total}  loss {fmt.number(step.loss)}  lr {fmt.rate(step.lr)}"
        f"  {fmt.count(step.tokens_per_second)} tokens/s{mfu}{experts}"
        f"  {fmt.size(step.memory_bytes)}  {fmt.duration(left)} left"
    )


class Pace:
    """Time left, from the steps of the last half minute (evaluations and saves included)."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def left(self, step: int, total: int, now: float) -> float:
        self._seen = [(t, s) for t, s in self._seen if now - t < 30.0][-200:]
        self._seen.append((now, step))
        first_time, first_step = self._seen[0]
        if step <= first_step:
            return float("inf")
        return (total - step) * (now - first_time) / (step - first_step)


class LineListener:
    """Plain lines on stdout; a progress line every few seconds, never one a step."""

    def __init__(self, show_samples: bool) -> None:
        self.show_samples = show_samples
        self.total = 0
        self.pace = Pace()
        self._last_line = 0.0
        self._prepared: tuple[str, int] = ("", -1)

    def handle(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self.total = event.max_steps
        if isinstance(event, events.Preparing):
            self._preparing(event)
        elif isinstance(event, events.StepDone):
            self._step(event)
        for line in describe(event, self.show_samples):
            self._write(line)

    def _preparing(self, event: events.Preparing) -> None:
        tenth = event.done * 10 // event.total if event.total else 0
        if (event.what, tenth) != self._prepared:
            self._prepared = (event.what, tenth)
            self._write(f"{event.what}{f' {tenth * 10} %' if event.total else ''}")

    def _step(self, event: events.StepDone) -> None:
        left = self.pace.left(event.step, self.total, event.time)
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS or event.step == self.total:
            self._last_line = now
            self._write(step_line(event, self.total, left))

    def _write(self, line: str) -> None:
        sys.stdout.write(visible(line) + "\n")

    def pulse(self) -> None:
        sys.stdout.flush()

    def close(self) -> None:
        sys.stdout.flush()


class BarListener:
    """A live line with bar and numbers under the log of evaluations, samples and saves."""

    def __init__(self, show_samples: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.show_samples = show_samples
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        self.task = self.progress.add_task("preparing", total=None, numbers="")
        self.pace = Pace()
        self.total = 0
        self._latest: events.StepDone | None = None
        self._left = float("inf")
        self._phase = ""
        self.progress.start()

    def handle(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self.total = event.max_steps
            case events.Preparing():
                self.progress.update(
                    self.task,
                    description=visible(event.what, lines=False),
                    total=event.total or None,
                    completed=event.done,
                )
            case events.StepDone():
                self._latest = event
                self._left = self.pace.left(event.step, self.total, event.time)
            case events.Phase():
                self._phase = event.phase
            case events.EvalProgress():
                self._phase = f"evaluating {event.done}/{event.total}"
        for line in describe(event, self.show_samples):
            self.progress.console.print(visible(line), style="" if "loss" in line else "dim")

    def pulse(self) -> None:
        step = self._latest
        if step is not None:
            mfu = "" if step.mfu is None else f" · MFU {fmt.percent(step.mfu)}"
            self.progress.update(
                self.task,
                description=f"{step.step}/{self.total}",
                total=self.total,
                completed=step.step,
                numbers=f"loss {fmt.number(step.loss)} · {fmt.count(step.tokens_per_second)} tok/s"
                f"{mfu} · {fmt.size(step.memory_bytes)} · {fmt.duration(self._left)} left"
                + ("" if self._phase == "training" else f" · {self._phase}"),
            )
        self.progress.refresh()

    def close(self) -> None:
        self.progress.stop()
