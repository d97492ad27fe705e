"""Signals that are answered whatever the main thread does.

A Python handler runs in the main thread, between two of its instructions: never while it waits for
a terminal or computes in C. Here the handlers do nothing; the interpreter writes the signal's
number into a pipe at once, and a thread of its own reads it there. Knows nothing of what the
answer is.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any


class SignalWatch:
    """While open, calls `answer(number)` in its own thread for each of `numbers` that arrives.

    To be opened in the main thread; the handlers that it found are put back at the end.
    """

    def __init__(self, numbers: Iterable[int], answer: Callable[[int], None]) -> None:
        self._numbers = tuple(numbers)
        self._answer = answer
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalWatch:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._pipe_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, _nothing)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._pipe_before)
        os.close(self._write_end)
        self._thread.join(1.0)

    def _run(self) -> None:
        while numbers := os.read(self._read_end, 64):
            for number in numbers:
                if number in self._numbers:
                    try:
                        self._answer(number)
                    except Exception:  # one failed answer must not leave the process deaf
                        traceback.print_exc()
        os.close(self._read_end)


def _nothing(number: int, frame: object) -> None:
    """A handler must exist for the number to be written into the pipe."""
