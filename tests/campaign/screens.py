"""Terminals with a person in front of them: who reads or does not, types, and closes the window.

Knows what was drawn, and nothing of what it means.
"""

from __future__ import annotations

import os
import pty
import re
import select
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.campaign.commands import command
from tests.campaign.processes import Forked


class Screen:
    """A pseudo-terminal. `path` is what a process opens; `reading` may be cleared for a while.

    `written` is all that was read of what was drawn.
    """

    def __init__(self, columns: int = 120, lines: int = 36) -> None:
        self.columns, self.lines = columns, lines
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)
        self.path = os.ttyname(self._slave)
        self.written = b""
        self.reading = threading.Event()
        self.reading.set()
        self._open = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def without_session(self, folder: Path) -> str:
        """A name of the terminal that no process takes for its controlling one."""
        link = folder / "terminal"
        link.symlink_to(self.path)
        return str(link)

    def resize(self, columns: int, lines: int) -> None:
        termios.tcsetwinsize(self._master, (lines, columns))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the window: whoever has the terminal open has lost it."""
        if self._open:
            self._open = False
            self.reading.set()
            self._thread.join()
            os.close(self._slave)
            os.close(self._master)

    def shows(self, begin: int = 0) -> list[str]:
        """The lines of the screen, of what was drawn from byte `begin` on."""
        import pyte

        screen = pyte.Screen(self.columns, self.lines)
        # Without what pyte would take for another sequence: keyboard protocol, questions.
        plain = re.sub(rb"\x1b\[[<>=][0-9;]*[a-z]|\x1b\[\?[0-9]+\$p", b"", self.written[begin:])
        pyte.ByteStream(screen).feed(plain)
        return screen.display

    def rest(self, seconds: float = 0.6, limit: float = 10.0) -> None:
        """Wait until nothing has been drawn for `seconds`."""
        end = time.monotonic() + limit
        seen, since = -1, time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < seconds:
            if len(self.written) != seen:
                seen, since = len(self.written), time.monotonic()
            time.sleep(0.05)

    def _read(self) -> None:
        while self._open:
            self.reading.wait()
            with suppress(OSError):  # nobody has it open yet, or nobody any more
                if select.select([self._master], [], [], 0.05)[0]:
                    self.written += os.read(self._master, 1 << 16)
                    continue
            time.sleep(0.01)


def start_app(root: Path, terminal: str, *arguments: str) -> Forked:
    """`tui-lab ARGUMENTS` in the lab at `root`, in the terminal of that name."""
    return Forked(_app, root, list(arguments), terminal)


def _app(say: Callable[..., None], root: Path, arguments: list[str], terminal: str) -> None:
    for name in ("COLUMNS", "LINES"):  # would be believed before the terminal
        os.environ.pop(name, None)
    command(say, root, arguments, terminal)
