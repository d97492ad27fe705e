"""A process in a pseudo-terminal: what is typed into it, what it draws, how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Terminal:
    """`python ARGUMENTS` in a pseudo-terminal of 120×36; `written` is all that was read of it.

    `controlling` False: the process has no controlling terminal, so that no SIGHUP tells it when
    its terminal is closed.
    """

    def __init__(self, *arguments: str, controlling: bool = True, **environment: str) -> None:
        self.written = b""
        self.code: int | None = None
        self.fd, slave = pty.openpty()
        self.resize(120, 36)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            if controlling:
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for number in (0, 1, 2):
                os.dup2(slave, number)
            os.closerange(3, 256)
            os.chdir(ROOT)
            os.environ.update(environment)
            for name in ("COLUMNS", "LINES"):  # would be believed before the terminal
                os.environ.pop(name, None)
            os.execv(sys.executable, [sys.executable, *arguments])
        os.close(slave)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, seconds: float = 0.05) -> None:
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if ready:
            try:
                self.written += os.read(self.fd, 1 << 16)
            except OSError:  # Linux: the other side is closed
                time.sleep(0.01)

    def read_slowly(self, bytes_per_second: int, seconds: float) -> None:
        """As a thin link does, a tenth of a second's worth at once."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ready, _, _ = select.select([self.fd], [], [], 0)
            if ready:
                self.written += os.read(self.fd, max(1, bytes_per_second // 10))
            time.sleep(0.1)

    def read_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.written[-2000:].decode(errors="replace")
            self.read()

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def hang_up(self) -> None:
        """Close the terminal under the process."""
        os.close(self.fd)
        self.fd = os.open(os.devnull, os.O_RDWR)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.read_for(0.2)  # its last words come a moment later than its end
        return self.code is not None

    def ends(self, seconds: float) -> int:
        """The exit code, without reading what is drawn meanwhile."""
        end = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < end, f"still running after {seconds} s"
            time.sleep(0.02)
        assert self.code is not None
        return self.code

    def is_restored(self) -> bool:
        """Whether echo and line editing are on, as a shell wants them."""
        flags = termios.tcgetattr(self.fd)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def close(self) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def shown(written: bytes, columns: int = 120, lines: int = 36) -> list[str]:
    """What a terminal that was told all this shows, as lines of text."""
    import pyte

    screen = pyte.Screen(columns, lines)
    pyte.ByteStream(screen).feed(_plain(written))
    return screen.display


def _plain(written: bytes) -> bytes:
    """Without the sequences that pyte would take for others (keyboard protocol, modes)."""
    import re

    return re.sub(rb"\x1b\[[<>=][0-9;]*[a-z]|\x1b\[\?[0-9]+\$p", b"", written)
