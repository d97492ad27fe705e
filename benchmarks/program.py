"""A program in a process of its own: its lines as they come, and its last words if it fails."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = 2000
"""Bytes of stderr that are told of one that fails."""


class Program:
    """Started at once, with a pipe to its stdin, at the head of a process group of its own."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: variables beside this process's own."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, seconds: float) -> str:
        """The next line of its stdout; "" at the end. Raises queue.Empty when none comes within
        `seconds`."""
        return self._lines.get(timeout=seconds)

    def last_words(self) -> str:
        """The end of its stderr."""
        self._errors.seek(0)
        return self._errors.read()[-WORDS:].decode(errors="replace").strip()

    def close(self) -> None:
        """Forget its words. It has ended."""
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository."""
    return [sys.executable, "-m", module, *arguments]
