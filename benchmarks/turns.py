"""Programs that run from beginning to end, each working a few seconds while the others are stopped.

For recipes, which cannot be asked for one window after another as the sides of `interleave` can. A
machine drifts by a third within minutes, and this is how all of them meet the same machine. Each
tells what it did and when by the clock of the wall; how long it worked is counted here. POSIX only.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from benchmarks.interleave import ROOT

TURN = 4.0
"""Seconds. What a program finds of its memory in the caches when it goes on is back in
milliseconds."""


class Side:
    """A program, in a process group of its own; stopped until its first turn. A context that ends
    it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: variables beside this process's own."""
        self.name = name
        self._command, self._environment = command, {**os.environ, **(environment or {})}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[str] | None = None
        self._turns: list[tuple[float, float]] = []
        self._lines: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)  # also to what it has started
            self._process.wait()
        self._errors.close()

    def turn(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Let it work; the JSON objects that it printed, as they come. Raises RuntimeError, with
        its last words, when it fails."""
        began = time.time()
        if self._process is None:
            self._start()
        else:
            self._signal(signal.SIGCONT)
        self._turns.append((began, float("inf")))
        while (left := began + seconds - time.time()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if not line:
                self._turns[-1] = began, time.time()
                self._end()
                return
            if line.startswith("{"):
                yield json.loads(line)
        self._signal(signal.SIGSTOP)
        self._turns[-1] = began, time.time()

    def worked(self, start: float, end: float) -> float:
        """Seconds of its turns between two moments, as `time.time` gives them."""
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in self._turns)

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _end(self) -> None:
        assert self._process is not None
        if self._process.wait():
            self._errors.seek(0)
            words = self._errors.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{self.name} failed:\n{words}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def take_turns(
    sides: Sequence[Side], seconds: float = TURN
) -> Iterator[tuple[Side, dict[str, Any]]]:
    """What the sides print until all have ended; every other round is in the opposite order."""
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side)
        order = list(sides)
        while order:
            for side in order:
                for record in side.turn(seconds):
                    yield side, record
            order = [side for side in reversed(order) if not side.ended]
