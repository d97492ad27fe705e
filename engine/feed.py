"""Batches prepared ahead in a thread, so that a read that hangs never hangs the training thread.

Knows nothing of what a batch holds, where it is read from or what it is made into. The batches come
in the very order of `Batches` alone; what was prepared and not yet handed out does not count in
`state`.

A read from a network file system can stay in the kernel for minutes, where neither a signal nor
another thread can end it. So nobody waits for a reader: one that is no longer wanted is left
behind with a copy of the batches of its own, and ends by itself when its read returns.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from engine.data import Batches

WAKE_SECONDS = 0.1


class FeedStopped(Exception):
    """The caller was asked to stop while it waited for a batch."""


class Feed:
    """The batches of `batches`, at most `depth` of them prepared ahead. For one calling thread.

    `batches` itself is left where it stands. Nothing is read before the first `next`.
    """

    def __init__(
        self, batches: Batches, depth: int = 2, make: Callable[[np.ndarray], Any] = lambda b: b
    ) -> None:
        """`make`: what is handed out of a batch (B, T+1) int64, made in the reading thread."""
        self._reader: _Reader | None = None
        self._batches, self._depth, self._make = batches, depth, make
        self._state, self._epoch = batches.state(), batches.epoch

    @property
    def epoch(self) -> float:
        """Passes over the windows that were handed out, with the part of the present one."""
        return self._epoch

    def next(
        self,
        should_stop: Callable[[], bool],
        on_silence: Callable[[float], None],
        silence_seconds: float = 30.0,
    ) -> Any:
        """What was made of the next batch.

        While there is none, `should_stop` is asked every 0.1 s, and `on_silence` is told the
        seconds of waiting once they exceed `silence_seconds`, and again each time they double.

        Raises FeedStopped when `should_stop` says so, and whatever reading the batch raised; the
        call after that reads the same batch again.
        """
        if self._reader is None:
            self._reader = _Reader(self._fork(), self._depth, self._make)
        began = time.monotonic()
        while (found := self._reader.take(WAKE_SECONDS)) is None:
            if should_stop():
                raise FeedStopped
            waited = time.monotonic() - began
            if waited >= silence_seconds:
                on_silence(waited)
                silence_seconds *= 2
        if isinstance(found, BaseException):
            self.close()
            raise found
        self._state, self._epoch = found.state, found.epoch
        return found.batch

    def state(self) -> dict[str, Any]:
        """Where `next` goes on, ready for JSON: as `Batches.state` after what was handed out."""
        return dict(self._state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken: in an earlier process, or before a step that was given up
        midway, whose batches are then handed out again.

        Raises CorpusError when it was taken over other windows; nothing has changed then.
        """
        batches = copy.copy(self._batches)
        batches.restore(state)
        self.close()
        self._state, self._epoch = batches.state(), batches.epoch

    def close(self) -> None:
        """Let the reading thread go; it is not waited for. A later `next` starts another."""
        if self._reader is not None:
            self._reader.leave()
            self._reader = None

    def __del__(self) -> None:
        self.close()  # a run that failed: its thread must not hold the corpus for ever

    def _fork(self) -> Batches:
        """The batches at the first one that was not handed out, for one reader alone."""
        batches = copy.copy(self._batches)
        batches.restore(self._state)
        return batches


class _Ready(NamedTuple):
    """A batch, and where its batches stood right after it."""

    batch: Any
    state: dict[str, Any]
    epoch: float


class _Reader:
    """A thread that keeps `depth` batches ready until it is let go or fails."""

    def __init__(self, batches: Batches, depth: int, make: Callable[[np.ndarray], Any]) -> None:
        self._batches, self._depth, self._make = batches, depth, make
        self._ready: deque[_Ready | BaseException] = deque()
        self._changed = threading.Condition()
        self._wanted = True
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    def take(self, seconds: float) -> _Ready | BaseException | None:
        """The next batch, or what reading it raised; None when there is none within `seconds`."""
        with self._changed:
            if not self._ready:
                self._changed.wait_for(lambda: self._ready, seconds)
            if not self._ready:
                return None
            found = self._ready.popleft()
            self._changed.notify()
            return found

    def leave(self) -> None:
        with self._changed:
            self._wanted = False
            self._ready.clear()
            self._changed.notify()

    def _run(self) -> None:
        while self._wanted:
            found: _Ready | BaseException
            try:
                batch = self._make(self._batches.next())
                found = _Ready(batch, self._batches.state(), self._batches.epoch)
            except BaseException as error:  # whatever it is, the thread that trains raises it
                found = error
            with self._changed:
                if self._wanted:
                    self._ready.append(found)
                    self._changed.notify()
                if isinstance(found, BaseException):
                    return
                self._changed.wait_for(lambda: len(self._ready) < self._depth or not self._wanted)
