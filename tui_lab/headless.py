"""Training without the app: the engine in a worker thread, its events as lines, bars or JSON.

The main thread drains events, draws, and turns signals into a Stop; it never touches the engine
otherwise. What is drawn depends on where stdout goes; what is computed does not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from engine import control, events

DRAIN_SECONDS = 0.2

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


class Listener(Protocol):
    """Shows events. `pulse` is called at every drain, `close` once at the end."""

    def handle(self, event: events.Event) -> None: ...

    def pulse(self) -> None: ...

    def close(self) -> None: ...


def run_headless(
    work: Callable[[events.Emit, control.Inbox], events.Finished], listener: Listener
) -> int:
    """Run `work(emit, inbox)` in a thread under `listener`; the process's exit code.

    A first SIGINT or SIGTERM stops after the step in hand and saves (130, 143); a second SIGINT
    leaves at once. Raises the EngineError that `work` raised.
    """
    queue: deque[events.Event] = deque()
    inbox = control.Inbox()
    outcome: dict[str, BaseException | events.Finished] = {}
    done = threading.Event()

    def body() -> None:
        try:
            outcome["finished"] = work(queue.append, inbox)
        except BaseException as error:
            outcome["error"] = error
        finally:
            done.set()

    signals = _Signals()
    thread = threading.Thread(target=body, name="training", daemon=True)
    with signals:
        thread.start()
        try:
            while not done.wait(DRAIN_SECONDS):
                _drain(queue, listener)
                if signals.count and not signals.told:
                    signals.told = True
                    inbox.put(control.Stop(reason=signals.name), who="signal")
                if signals.interrupts > 1:
                    listener.close()
                    sys.stderr.write("interrupted again: left without waiting for the save\n")
                    sys.stderr.flush()
                    os._exit(130)
            _drain(queue, listener)
        finally:
            listener.close()
    error = outcome.get("error")
    if isinstance(error, BaseException):
        raise error
    finished = outcome["finished"]
    assert isinstance(finished, events.Finished)
    return EXIT_CODES.get(finished.reason, 0)


def _drain(queue: deque[events.Event], listener: Listener) -> None:
    while queue:
        listener.handle(queue.popleft())
    listener.pulse()


class _Signals:
    """Handlers that only count; put back at the end."""

    def __init__(self) -> None:
        self.count = self.interrupts = 0
        self.name = ""
        self.told = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)

    def _caught(self, number: int, frame: object) -> None:
        self.count += 1
        self.interrupts += number == signal.SIGINT
        self.name = self.name or signal.Signals(number).name

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


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
