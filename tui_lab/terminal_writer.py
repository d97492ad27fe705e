"""A thread that writes to a terminal, so that nobody else ever waits for one.

A terminal may take nothing for minutes (a dead link) or be gone. What is given here is taken whole
or not at all: what has been begun is finished, so no escape sequence is ever cut. Knows nothing of
Textual, and nothing of what it writes.
"""

from __future__ import annotations

import os
import stat
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

LIMIT = 1 << 16
"""Bytes that may wait. Beyond it a slow link would show what was true seconds ago."""
CHUNK = 4096
CANCEL = b"\x18"
"""Ends whatever escape sequence a terminal is in the middle of."""
LAST_WORDS_SECONDS = 0.3
SLOW_SECONDS = 0.2
SLOW_PIECES = 3
"""A terminal is slow when that many pieces in a row were waited for that long. One that stood still
takes only the first one slowly."""


class TerminalWriter(threading.Thread):
    """Writes to the terminal behind `descriptor` what `write` is given.

    `written`: bytes that the terminal has taken. `behind`: something was dropped. `on_caught_up` is
    called when something was dropped and the terminal takes data again, `on_slow` when the terminal
    has turned out to be slow (once), `on_lost` when it is gone; all in this thread.
    """

    def __init__(
        self,
        descriptor: int,
        on_caught_up: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="terminal-output", daemon=True)
        self._descriptor = _own_description(descriptor)
        self._on_caught_up = on_caught_up
        self._on_lost = on_lost
        self._on_slow = on_slow
        self._changed = threading.Condition()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._waiting = 0  # bytes
        self._slow_pieces = 0  # in a row
        self.written = 0
        self.behind = False  # something was dropped since the queue was last empty
        self._ending = False
        self._patience_over = False

    def write(self, text: str, *, keep: bool = False) -> bool:
        """Take `text` as a whole, or none of it while the terminal is behind; says which.

        `keep`: this is never dropped (a change of mode, which no repaint would make good).
        """
        data = text.encode("utf-8", errors="replace")
        with self._changed:
            if self._ending:
                return False
            if not keep and (self.behind or self._waiting > LIMIT):
                self.behind = True
                return False
            self._queue.append((data, keep))
            self._waiting += len(data)
            self._changed.notify()
        return True

    def stop(self, seconds: float = 1.0) -> None:
        """Write what waits, for at most `seconds`; then throw away all but what is to be kept.

        Callable from any thread but this one, and more than once.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self.ident is None:
            return
        self.join(seconds)
        self._patience_over = True
        self.join(LAST_WORDS_SECONDS)

    def run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._put(piece)
            if self._patience_over:
                self._say_last_words()
        except OSError:  # EIO: the other side has been closed
            with self._changed:
                self._ending = True
                self._queue.clear()
            self._on_lost()
        finally:
            os.close(self._descriptor)

    def _next(self) -> bytes | None:
        """The next piece to write, None at the end; sleeps until there is one."""
        while True:
            with self._changed:
                if self._patience_over or (self._ending and not self._queue):
                    return None
                if self._queue:
                    piece, _ = self._queue[0]
                    return piece
                caught_up, self.behind = self.behind, False
                if not caught_up:
                    self._changed.wait()
            if caught_up:
                self._on_caught_up()

    def _put(self, piece: bytes) -> None:
        """Write all of `piece`, however long the terminal takes; less once patience is over."""
        rest = memoryview(piece)
        pause, waited = 0.001, 0.0
        while rest and not self._patience_over:
            try:
                taken = os.write(self._descriptor, rest[:CHUNK])
                rest = rest[taken:]
                self.written += taken
                pause = 0.001
            except BlockingIOError:
                # A full pseudo-terminal may still say that it is writable: only time is left.
                time.sleep(pause)
                waited += pause
                pause = min(pause * 1.5, 0.05)
        if not rest:
            with self._changed:
                self._queue.popleft()
                self._waiting -= len(piece)
        self._slow_pieces = self._slow_pieces + 1 if waited > SLOW_SECONDS else 0
        if self._slow_pieces == SLOW_PIECES:
            self._on_slow()

    def _say_last_words(self) -> None:
        """What must be kept, in the place of everything that the terminal has not taken yet."""
        kept = b"".join(piece for piece, keep in self._queue if keep)
        with suppress(termios.error):
            termios.tcflush(self._descriptor, termios.TCOFLUSH)
        with suppress(BlockingIOError):
            os.write(self._descriptor, CANCEL + kept)


def _own_description(descriptor: int) -> int:
    """The same terminal, opened anew: to write without blocking must be this thread's affair alone,
    not the shell's, which shares the descriptor. A plain copy where it cannot be opened: then the
    thread may be held by the terminal, and is left behind at the end."""
    if sys.platform != "win32":
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(os.ttyname(descriptor), flags)
    return os.dup(descriptor)


def is_lost(descriptor: int) -> bool:
    """Whether this was a terminal that has been closed: each write to it would be an error."""
    return stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)
