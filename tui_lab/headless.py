"""Training without the app: the engine in a worker thread, its events as lines, bars or JSON.

The main thread drains events and draws; signals become a Stop in a thread of their own. Neither
touches the engine otherwise. What is drawn depends on where stdout goes; what is computed does not:
a terminal or a pipe that goes away ends the drawing alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, Protocol, TextIO

from engine import control, events
from engine.errors import EngineError, in_words
from tui_lab.cli.common import note
from tui_lab.event_queue import EventQueue
from tui_lab.signals import SignalWatch

DRAIN_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""For a thread to come back by itself once everything is said, or before anything has begun."""

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "not finite": 1}


class Listener(Protocol):
    """Shows events. `pulse` is called at every drain, `close` once at the end."""

    def handle(self, event: events.Event) -> None: ...

    def pulse(self) -> None: ...

    def close(self) -> None: ...


def run_headless(
    work: Callable[[events.Emit, control.Inbox], events.Finished], listener: Listener
) -> int:
    """Run `work(emit, inbox)` in a thread under `listener`; the process's exit code.

    A first SIGINT or SIGTERM stops after the step in hand and saves (130, 143), or leaves soon
    where nothing has begun; a second SIGINT leaves at once. A closed terminal (SIGHUP) stops
    nothing. The run's last word is the end, although its thread may be stuck: the process is then
    ended from here. A listener that fails is heard no more and the work goes on: the run's own log
    says what it would have. Raises EngineError for whatever `work` raised.
    """
    listener = Guarded(listener)
    queue = EventQueue()
    inbox = control.Inbox()
    outcome: dict[str, BaseException | events.Finished] = {}
    leaving = _Leaving(inbox)
    returned = threading.Event()

    def emit(event: events.Event) -> None:
        queue.append(event)
        leaving.hear(event)

    def body() -> None:
        try:
            outcome["finished"] = work(emit, inbox)
        except BaseException as error:
            outcome["error"] = error
        finally:
            returned.set()
            leaving.over.set()

    thread = threading.Thread(target=body, name="training", daemon=True)
    with leaving:
        thread.start()
        while not leaving.over.wait(DRAIN_SECONDS) and not leaving.is_due():
            _drain(queue, listener)
        _drain(queue, listener)
        # A thread that nobody asked to leave comes back by itself: its last files may take long.
        if not leaving.hasty:
            returned.wait(GRACE_SECONDS if leaving.code else None)
        _drain(queue, listener)
        listener.close()
        if not returned.is_set():
            leaving.leave()
    error = outcome.get("error")
    if isinstance(error, EngineError):
        raise error
    if isinstance(error, BaseException):
        # Also SystemExit: an end that the engine did not mean must not look like one that it did.
        raise EngineError(in_words(error), _where(listener.run_path)) from error
    finished = outcome["finished"]
    assert isinstance(finished, events.Finished)
    return EXIT_CODES.get(finished.reason, 0)


class _Leaving:
    """What signals ask for, while open. `code`: the exit code of the first that came, 0 for none.

    The main thread leaves by `is_due`. Should it hang in a write to a terminal that takes nothing,
    the process is ended without it.
    """

    def __init__(self, inbox: control.Inbox) -> None:
        self.code = 0
        self.hasty = False  # asked twice
        self.over = threading.Event()  # the run has said its last word
        self._begun = False  # there is something to save
        self._asked_at = 0.0
        self._inbox = inbox
        self._left = threading.Event()
        numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
        self._watch = SignalWatch(set(numbers), self._answer)

    def hear(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self._begun = True
        elif isinstance(event, events.Finished | events.Failed):
            self.over.set()

    def is_due(self) -> bool:
        """Whether to leave although the run has not said its last word."""
        early = not self._begun and time.monotonic() - self._asked_at > GRACE_SECONDS
        return self.hasty or bool(self.code and early)

    def leave(self) -> NoReturn:
        """End the process although a thread of it is busy: nothing is lost with that."""
        if self.hasty and not self.over.is_set():
            with suppress(OSError, ValueError):
                note("interrupted again: left without waiting for the save")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)

    def _answer(self, number: int) -> None:
        """In the watching thread."""
        name = signal.Signals(number).name
        if name not in EXIT_CODES:
            return  # SIGHUP: writing to the terminal will fail, which is where it is noticed
        if not self.code:
            self.code, self._asked_at = EXIT_CODES[name], time.monotonic()
            self._inbox.put(control.Stop(save=True, reason=name, urgent=True), who="signal")
            threading.Thread(target=self._see_out, name="leaving", daemon=True).start()
        elif number == signal.SIGINT:
            self.hasty = True

    def _see_out(self) -> None:
        """Leave by force once the main thread has had its time to leave in order."""
        while not (self.over.wait(DRAIN_SECONDS) or self.is_due()):
            pass
        if not self._left.wait(GRACE_SECONDS + DRAIN_SECONDS + 1.0):
            os._exit(self.code)

    def __enter__(self) -> None:
        self._watch.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._left.set()
        self._watch.__exit__(*exception)


def _where(run_path: str) -> str:
    """Where the traceback of a failure is."""
    return f"what happened is in {run_path}/log.txt" if run_path else "--debug shows where"


class Guarded:
    """A listener whose failure is not the run's: a full disk or a closed pipe behind stdout, a
    mistake of ours in drawing. It is told once, and what comes then is shown to nobody."""

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener
        self.run_path = ""

    def handle(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self.run_path = event.path
        self._call("handle", event)

    def pulse(self) -> None:
        self._call("pulse")

    def close(self) -> None:
        self._call("close")

    def _call(self, name: str, *told: events.Event) -> None:
        if self._listener is None:
            return
        try:
            getattr(self._listener, name)(*told)
        except Exception as error:  # whatever it is, it is not worth a run
            failed, self._listener = self._listener, None
            with suppress(Exception):
                failed.close()  # a bar gives the terminal back
            if isinstance(error, OSError):
                _silence(sys.stdout)
            try:
                log = f"; its log is {self.run_path}/log.txt" if self.run_path else ""
                note(f"the display failed ({in_words(error)}): training goes on{log}")
            except (OSError, ValueError):
                _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Nothing more can be written there, and Python would try once more at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _drain(queue: EventQueue, listener: Listener) -> None:
    while queue:
        listener.handle(queue.popleft())
    listener.pulse()


class JsonListener:
    """One JSON object a line, for scripts: steps, evaluations, samples, checkpoints, the end."""

    HIDDEN = (events.TokenGenerated, events.EvalProgress, events.DeviceStats, events.Phase)

    def handle(self, event: events.Event) -> None:
        if not isinstance(event, self.HIDDEN):
            sys.stdout.write(events.to_json(event) + "\n")

    def pulse(self) -> None:
        sys.stdout.flush()

    def close(self) -> None:
        sys.stdout.flush()


def make_listener(*, as_json: bool, show_samples: bool) -> Listener:
    """The listener that suits stdout: JSON if asked, bars on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonListener()
    if sys.stdout.isatty():
        from tui_lab.progress import BarListener

        return BarListener(show_samples)
    from tui_lab.progress import LineListener

    return LineListener(show_samples)
