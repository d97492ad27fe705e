"""The app's one plain thread, in which the engine trains.

Plain, because a Textual worker is marked cancelled while it runs on. Events leave through a deque
and commands enter through an inbox: the thread never calls the app, the app never joins it. Torch
is imported inside the thread, the first time something trains.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, in_words
from tui_lab.event_queue import EventQueue

if TYPE_CHECKING:  # the app's first paint does not wait for these
    from engine.control import Command, Inbox
    from engine.events import Event, Failed

Work = Callable[..., Any]


class TrainerThread:
    """Runs one piece of training at a time; `session` stands in for `engine.session` in tests.

    What goes wrong leaves as a Failed event: `errors` is always empty.
    """

    elsewhere = False  # the run that it drives is this process's own

    def __init__(self, session: Any = None) -> None:
        self.events = EventQueue()
        self.errors: deque[EngineError] = deque()
        self._session = session
        self._thread: threading.Thread | None = None
        self._inbox: Inbox | None = None
        self._wants_pause = False
        self._begun = self._ended = False

    @property
    def active(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def working(self) -> bool:
        """Whether a run is between its start and its last word: there is something to save."""
        return self._begun and not self.over

    @property
    def over(self) -> bool:
        """Whether the last run has said its last word; its thread may still be busy."""
        return self._ended or not self.active

    @property
    def paused(self) -> bool:
        """Whether a pause was asked for; the run's own state tells when it took effect."""
        return self._wants_pause and self.active

    def refuse_while_active(self) -> None:
        """Raise EngineError while a run trains: one at a time."""
        if self.active:
            raise EngineError("a run is training already", "stop it first (x), or let it finish")

    def start(self, function: str, *args: Any, **kwargs: Any) -> None:
        """Call `engine.session.<function>(*args, emit=…, inbox=…, **kwargs)` in the thread."""
        self.refuse_while_active()
        from engine.control import Inbox

        self._inbox = Inbox()
        self._wants_pause = self._begun = self._ended = False
        # A daemon, so that a second ctrl-c can leave at once; every orderly way out waits for it.
        self._thread = threading.Thread(
            target=self._work, args=(function, args, kwargs), name="trainer", daemon=True
        )
        self._thread.start()

    def put(self, command: Command, who: str = "user") -> None:
        """Tell the run something; it takes effect at the next step boundary."""
        from engine.control import Pause, Resume, Step

        if self._inbox is None:
            return  # nothing has trained yet
        if isinstance(command, Pause | Resume | Step):
            self._wants_pause = not isinstance(command, Resume)
        self._inbox.put(command, who)

    def wait(self, seconds: float) -> bool:
        """For callers without an interface: sleep until the thread ends; says whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.active

    def _work(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from engine.events import Failed, Finished, RunStarted

        last_step = 0

        def emit(event: Event) -> None:
            nonlocal last_step
            self._begun = self._begun or isinstance(event, RunStarted)
            self._ended = self._ended or isinstance(event, Finished | Failed)
            last_step = getattr(event, "step", last_step)
            self.events.append(event)

        _give_way_to_the_screen()
        try:
            session = self._session or importlib.import_module("engine.session")
            getattr(session, function)(*args, emit=emit, inbox=self._inbox, **kwargs)
        except BaseException as error:
            # Also SystemExit and MemoryError: a thread that dies silently looks like a hang.
            if not self._ended:
                self.events.append(failure(error, last_step))


def _give_way_to_the_screen() -> None:
    """Let a key be answered at once although training keeps every core busy.

    The calling thread, and the compute threads that it will start, come second whenever the screen
    has something to do; they lose no more than what the screen uses. Only on Linux, where niceness
    belongs to a thread, and only where the CPU trains: a thread that feeds a GPU must not wait.
    """
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 5)


def failure(error: BaseException, step: int = 0) -> Failed:
    """What a person reads of `error`; with a traceback only if it does not explain itself."""
    from engine.events import Failed

    if isinstance(error, EngineError):
        return Failed(step=step, title=error.title, hint=error.hint)
    lines = traceback.format_exception(error)
    return Failed(step=step, title=in_words(error), hint="", traceback="".join(lines))
