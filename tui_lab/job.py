"""One piece of slow work in a thread: what it is doing, how far it is, and how to stop it.

Written by the thread, read by whoever draws. No Textual.
"""

from __future__ import annotations

import threading


class Cancelled(Exception):
    """Raised inside the work, by its own progress report, after `cancel`."""


class Job:
    """`progress` is handed to the engine as its callback; an exception there ends the work."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = self.total = 0
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def progress(self, what: str, done: int, total: int) -> None:
        """Say where the work is; `total` 0 when unknown. Raises Cancelled after `cancel`."""
        if self.cancelled:
            raise Cancelled
        self.what, self.done, self.total = what, done, total

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None when that is not known."""
        return min(1.0, self.done / self.total) if self.total else None
