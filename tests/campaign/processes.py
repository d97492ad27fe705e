"""Runs in processes of their own, at the price of a fork: what can be killed, and what it told.

A fork server imports torch and the engine once (`tests.campaign.warm`); each run is a child of it
that trains for real, in a lab on disk, and tells through a pipe what it does as it does it. What
stood in the pipe when the process was killed is still read. Knows nothing of what must hold.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.lab import Lab
from tests.conftest import small_text

PATIENCE = 120.0  # seconds without a word after which a process counts as hung
CORPUS = "small"


@dataclass(frozen=True)
class Told:
    """One thing that a run said. `what`: a phase (training, saving, …) or one of

    begun (the loop), step, writing (a checkpoint's first byte is about to be written), durable
    (its last one is), settled (retention is done), saved (the event that promises the checkpoint),
    finished, failed. `at`: CLOCK_MONOTONIC, which all processes share.
    """

    what: str
    step: int
    at: float
    text: str = ""


_reaping = threading.Lock()
"""Starting a process looks for ended ones, and an exit code can be read once only."""


class Forked:
    """A child of the fork server that carries out `body(say, *arguments)`."""

    def __init__(self, body: Callable[..., None], *arguments: Any) -> None:
        context = _context()
        self._wire, theirs = context.Pipe(duplex=False)
        self.told: list[Told] = []
        self.process = context.Process(target=_child, args=(theirs, body, arguments), daemon=True)
        with _reaping:
            self.process.start()
        self.started = time.monotonic()
        theirs.close()

    def listen(self, until: float | None = None) -> Iterator[Told]:
        """What the child says, as it says it, until it ends or the moment `until` has come."""
        while True:
            now = time.monotonic()
            left = PATIENCE if until is None else until - now
            if left <= 0:
                return
            if not self._wire.poll(left):
                if until is None:
                    self.kill()
                    raise TimeoutError(f"a run said nothing for {PATIENCE:.0f} s: {self.told[-3:]}")
                return
            try:
                said = Told(*self._wire.recv())
            except (EOFError, OSError):  # gone, perhaps in the middle of a long word
                return
            self.told.append(said)
            yield said

    def finish(self) -> int:
        """Hear it out; its exit code (0 only if nothing was raised)."""
        if self._wire.closed:
            return self._reap()
        for _ in self.listen():
            pass
        return self.code()

    def kill(self) -> bool:
        """kill -9, now; whether that is what ended it."""
        if not self.ended():
            self.process.kill()
        return self.code() == -9

    def code(self) -> int:
        """The exit code, once it is there, with what it said to the last."""
        code = self._reap()
        try:
            while not self._wire.closed and self._wire.poll():
                self.told.append(Told(*self._wire.recv()))
        except (EOFError, OSError):
            pass
        self._wire.close()
        return code

    def outlast(self, until: float) -> bool:
        """Hear it out up to a moment; whether it has ended by then."""
        while not self.ended():
            if time.monotonic() >= until:
                return False
            for _ in self.listen(until=min(until, time.monotonic() + 0.05)):
                pass
        return True

    def ended(self) -> bool:
        """Whether the process is gone, or about to be reaped."""
        return bool(connection.wait([self.process.sentinel], 0))

    def _reap(self) -> int:
        connection.wait([self.process.sentinel])
        with _reaping:
            self.process.join()
        return self.process.exitcode or 0

    def last(self, *kinds: str) -> Told | None:
        return next((said for said in reversed(self.told) if said.what in kinds), None)


def _context() -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.campaign.warm"])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return context


def _child(wire: connection.Connection, body: Callable[..., None], arguments: tuple) -> None:
    def say(what: str, step: int = 0, text: str = "") -> None:
        wire.send((what, step, time.monotonic(), text))  # one write: none is ever told by half

    try:
        body(say, *arguments)
    except EngineError:  # told already; anything else is shown with its traceback
        raise SystemExit(1) from None


def train(say: Callable[..., None], root: Path, run: str, values: dict | None) -> None:
    """A new run called `run` of the configuration `values` in the lab at `root`, to its end.

    `values` None: goes on with the run instead.
    """
    from engine import control, events, peaks
    from engine.checkpoints import background
    from engine.checkpoints.retention import Retention
    from engine.config import Config
    from engine.session import resume_training, run_training

    os.environ["TUI_LAB_CACHE_DIR"] = str(root / "cache")
    peaks.measured_peak = lambda *asked: 1e12  # 0.2 s in which nothing can be lost
    write, apply = background.write_checkpoint, Retention.apply
    background.write_checkpoint = _announced(say, write, "writing", "durable")
    Retention.apply = _announced(say, apply, "", "settled")

    def emit(event: events.Event) -> None:
        match event:
            case events.Phase(phase=phase, step=step):
                say(phase, step)
            case events.StepDone(step=step):
                say("step", step)
            case events.CheckpointSaved(step=step):
                say("saved", step)
            case events.RunStarted(step=step):
                say("begun", step)
            case events.Preparing(what=what):
                say("preparing", 0, what)
            case events.Finished(step=step):
                say("finished", step)
            case events.Failed(title=title, traceback=traceback):
                say("failed", 0, traceback or title)

    lab, inbox = Lab(root), control.Inbox()
    if values is None:
        resume_training(lab, run, emit=emit, inbox=inbox)
    else:
        run_training(lab, Config().with_values(values), emit=emit, inbox=inbox, name=run)


def _announced(
    say: Callable[..., None], function: Callable[..., Any], before: str, after: str
) -> Callable[..., Any]:
    def announced(*values: Any, **named: Any) -> Any:
        if before:
            say(before)
        result = function(*values, **named)
        say(after)
        return result

    return announced


def make_lab(root: Path, lines: int = 100) -> Lab:
    """A lab with the corpus `small`, which no run has prepared yet."""
    from engine.corpora import add

    lab = Lab.init(root)
    source = lab.root / "small.txt"
    source.write_text(small_text(lines))
    add(lab, CORPUS, [source])
    return lab
