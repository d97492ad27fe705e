"""What a piece of the program writes to a terminal, to the last byte: a fork in a pseudo-terminal.

A fork, so that nothing is imported anew; the bytes are those that a terminal would have got.
"""

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
from collections.abc import Callable, Iterable
from contextlib import suppress

PATIENCE = 60.0
"""Seconds after which the program counts as hung."""

Keys = Iterable[tuple[bytes | signal.Signals, float]]
"""What is typed (or the signal that is sent), and how long the terminal must have been quiet."""


class Hung(Exception):
    """It did not end."""


def in_terminal(
    body: Callable[[], object], keys: Keys = (), *, size: tuple[int, int] = (120, 36)
) -> tuple[bytes, int]:
    """All that `body()` wrote in a terminal of this width and height, and its exit code (128 and
    more: a signal). Raises Hung."""
    child, terminal = pty.fork()
    if child == 0:
        _be_a_program(body)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    written = bytearray()
    try:
        for typed, quiet in keys:
            if not _read(terminal, written, quiet):
                break  # it has ended already
            if isinstance(typed, signal.Signals):
                os.kill(child, typed)
            else:
                with suppress(OSError):
                    os.write(terminal, typed)
        if _read(terminal, written, PATIENCE, PATIENCE):
            raise Hung(ascii(bytes(written[-400:])))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except Hung:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(terminal)
    return bytes(written), code if code >= 0 else 128 - code


def _read(terminal: int, written: bytearray, quiet: float, most: float = 2.0) -> bool:
    """Read until nothing has come for `quiet` seconds, or for `most`; False at the end."""
    end = time.monotonic() + most
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], quiet)
        if not ready:
            return True
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux: the other side is closed
            return False
        if not data:
            return False
        written += data
    return True


def _be_a_program(body: Callable[[], object]) -> None:
    """In the child: standard streams of its own, and an end that runs nothing of the parent's."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
        body()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
