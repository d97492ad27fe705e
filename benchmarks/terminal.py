"""A program in a real pseudo-terminal: what it writes, with the moment at which it was read.

Bytes are kept raw: a terminal emulator in this process would take the processor from what is
measured.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType


class Terminal:
    """Starts `command`; `started` is the moment just before exec, on `time.perf_counter`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        columns: int = 120,
        rows: int = 36,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        variables = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        variables |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
        self._written = bytearray()
        self._chunks: list[tuple[float, bytes]] = []
        self._news = threading.Condition()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            close_fds=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> None:
        while True:
            try:
                select.select([self._master], [], [])
                data = os.read(self._master, 1 << 16)
            except (OSError, ValueError):  # the program is gone, or the terminal was closed
                data = b""
            with self._news:
                self._written += data
                self._chunks.append((time.perf_counter(), data))
                self._news.notify_all()
            if not data:
                return

    def chunks(self, first: int) -> list[tuple[float, bytes]]:
        """What was read, from the `first` piece on, each with its moment."""
        with self._news:
            return self._chunks[first:]

    def mark(self) -> int:
        """A place in what was written: the end of it, now."""
        with self._news:
            return len(self._written)

    def wait_for(self, text: str, *, after: int = 0, seconds: float = 60.0) -> float:
        """The moment at which `text` has been read behind a place. Raises TimeoutError."""
        wanted = text.encode()
        deadline = time.perf_counter() + seconds
        with self._news:
            while self._written.find(wanted, after) < 0:
                left = deadline - time.perf_counter()
                if left <= 0 or not self._news.wait(left):
                    tail = bytes(self._written[-300:])
                    raise TimeoutError(f"{text!r} never came; the last bytes: {tail!r}")
            return time.perf_counter()

    def send(self, keys: str) -> float:
        """Press keys (as bytes of a terminal); returns the moment just before."""
        now = time.perf_counter()
        os.write(self._master, keys.encode())
        return now

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.mark()

    def close(self) -> None:
        """End the program, and everything that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        self._reader.join(1)


class Shown:
    """What a terminal shows, followed from the bytes that were read: cells that stay as they are
    are not sent again, so that words may be on the screen and never among the bytes.

    The emulator works when it is asked, which should not be while something is timed.
    """

    def __init__(self, terminal: Terminal, columns: int = 120, rows: int = 36) -> None:
        import pyte

        self._terminal, self._read = terminal, 0
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def has(self, text: str) -> bool:
        return any(text in line for line in self._screen.display)

    def moment(self, met: Callable[[], bool]) -> float | None:
        """When the screen first was as `met` says, among what has been read since the last look;
        None where it never was. Goes no further than that."""
        for when, data in self._terminal.chunks(self._read):
            self._read += 1
            # Modes of the keyboard, which pyte takes for something else.
            self._stream.feed(re.sub(rb"\x1b\[[<>=][0-9;]*[a-z]|\x1b\[\?[0-9]+\$p", b"", data))
            if met():
                return when
        return None

    def wait_for(self, met: Callable[[], bool], seconds: float) -> float:
        """The same, looked for every quarter of a second. Raises TimeoutError."""
        deadline = time.perf_counter() + seconds
        while (found := self.moment(met)) is None:
            if time.perf_counter() > deadline:
                raise TimeoutError("\n".join(self._screen.display))
            time.sleep(0.25)
        return found
