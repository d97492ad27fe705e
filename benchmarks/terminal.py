"""A program in a real pseudo-terminal: what it writes, with the moment at which it was read.

Bytes are kept raw: a terminal emulator in this process would take the processor from what is
measured.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
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
                self._news.notify_all()
            if not data:
                return

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
