"""A run that another process trains, with the interface of the app's own trainer thread.

One plain daemon thread reads the run's files and sends commands through its spool: a shared file
system that hangs leaves the screen alive. The history is folded in that thread, however long it is;
what comes afterwards leaves through the same kind of queue as a run's own events.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from engine.control import Command, Sample
from engine.errors import EngineError
from engine.events import Event, Preparing, SampleDone
from engine.follow import Follower
from engine.spool import Answers, own_name, send
from tui_lab.event_queue import EventQueue
from tui_lab.state import RunState
from tui_lab.trainer_thread import failure

LOOK_SECONDS = 0.25
ANSWER_SECONDS = 0.1
ENDED_SECONDS = 1.0
"""Between two looks at a run that has ended: another process may go on with it."""
REST_SECONDS = 0.001
"""Between two portions of a long history: without it a key waits for this thread three times as
long."""
SAID_SECONDS = 0.2
"""Between two words on how much of a long history was read."""
ENOUGH = 5_000
"""Events that wait for the screen; more of the run is not read until it has taken them."""


class AttachedRun:
    """Begins to read `run_path` at once, until `close`. `errors` holds what went wrong with a
    command, for whoever draws."""

    elsewhere = True

    def __init__(self, run_path: Path, smoothing: int = 0) -> None:
        self.path = run_path
        self.events = EventQueue()
        self.errors: deque[EngineError] = deque()
        self.me = own_name()
        self._follower = Follower(run_path)
        self._past: RunState | None = self._fresh_state(smoothing)
        self._history: deque[RunState] = deque()
        self._outbox: deque[tuple[Command, str]] = deque()
        self._answers: dict[str, Answers] = {}
        self._over = threading.Event()
        self._wake = threading.Event()
        self._closing = False
        self._said = 0.0
        self._thread = threading.Thread(target=self._work, name="attached", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether a process trains the run; also as long as nothing is known."""
        return not self._over.is_set() and not self._closing

    @property
    def working(self) -> bool:
        """As `active`: it is another process that ends, and not this one's thread."""
        return self.active

    @property
    def paused(self) -> bool:
        return self.active and self._follower.state == "paused"

    def put(self, command: Command, who: str = "") -> None:
        """Send the run something; it takes effect at its next step boundary. `errors` tells if it
        cannot be sent."""
        if isinstance(command, Sample) and command.request:
            self._answers[command.request] = Answers(self.path, command.request)
        self._outbox.append((command, who))
        self._wake.set()

    def wait(self, seconds: float) -> bool:
        """Sleep until the run has ended, at most `seconds`; says whether it has."""
        return self._over.wait(seconds)

    def close(self) -> None:
        """Let go of the run, which is left as it is. Nobody waits for the thread."""
        self._closing = True
        self._wake.set()

    def take_history(self) -> RunState | None:
        """The run's whole past, once, when it has been read; the events go on from there."""
        if not self._history:
            return None
        while self.events and isinstance(self.events[0], Preparing):
            self.events.popleft()  # how much was read, until now
        return self._history.popleft()

    def _fresh_state(self, smoothing: int) -> RunState:
        run = RunState(None, self.path.name, smoothing)
        run.elsewhere, run.me = True, self.me
        run.path = str(self.path)
        return run

    # In the thread.

    def _work(self) -> None:
        try:
            while not self._closing:
                self._send()
                self._read()
                self._hear()
                self._wake.wait(self._pause())
                self._wake.clear()
        except BaseException as error:
            # Also MemoryError: a thread that dies silently looks like a run that stands still.
            self.events.append(failure(error))
            self._over.set()
        finally:
            for answers in list(self._answers.values()):
                answers.close()

    def _pause(self) -> float:
        if not self._follower.caught_up and len(self.events) < ENOUGH:
            return REST_SECONDS
        if self._answers:
            return ANSWER_SECONDS
        return LOOK_SECONDS if self._follower.alive else ENDED_SECONDS

    def _send(self) -> None:
        while self._outbox:
            command, who = self._outbox.popleft()
            try:
                send(self.path, command, who or self.me)
            except EngineError as error:
                self.errors.append(error)
                if isinstance(command, Sample) and command.request:
                    self._end_sample(command.request, str(error))

    def _read(self) -> None:
        if len(self.events) > ENOUGH:
            return  # the screen stands still: what it has not seen can wait in the files
        found = self._follower.poll()
        if self._past is not None:
            self._recall(found)
        else:
            for event in found:
                # The console hears its answers from their own files, every token before the end.
                if not (isinstance(event, SampleDone) and event.request):
                    self.events.append(event)
        if self._follower.caught_up:
            self._set_over()

    def _recall(self, found: list[Event]) -> None:
        """Fold a portion of the past; hand it over once it has all been read."""
        assert self._past is not None
        for event in found:
            self._past.apply(event)
        if self._follower.caught_up and self._past.started is not None:
            self._history.append(self._past)
            self._past = None
        elif time.monotonic() - self._said > SAID_SECONDS:
            self._said = time.monotonic()
            done, total = self._follower.progress
            self.events.append(Preparing(what="reading the run's history", done=done, total=total))

    def _set_over(self) -> None:
        if self._follower.alive or self._past is not None:
            self._over.clear()
        else:
            self._over.set()

    def _hear(self) -> None:
        """Tokens and ends of the samples that were asked for here."""
        for request, answers in list(self._answers.items()):
            for event in answers.poll():
                self.events.append(event)
                if isinstance(event, SampleDone):
                    self._answers.pop(request).close()
        if self._over.is_set() and self._answers:
            for request in list(self._answers):
                self._end_sample(request, "the run ended before the text did")

    def _end_sample(self, request: str, error: str) -> None:
        if (answers := self._answers.pop(request, None)) is not None:
            answers.close()
        facts: dict[str, Any] = {"step": 0, "prompt": "", "text": "", "tokens": 0, "seconds": 0.0}
        self.events.append(SampleDone(request=request, error=error, reason="error", **facts))
