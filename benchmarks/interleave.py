"""Several sides in processes of their own, timed in turn: A B A B …, in windows of seconds.

A machine drifts by a third within half an hour, so rates are compared with their neighbours in
time alone. A round is one window of every side, every other round in the opposite order. Rounds
during which other processes took more than 3 % of the machine are made again, do not count, and
are told.
"""

from __future__ import annotations

import json
import queue
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from benchmarks import quiet
from benchmarks.program import Program, python
from engine import machine

START_SECONDS = 240.0
"""A side that is not ready by then has failed: compiling takes up to half a minute."""
WINDOW_SECONDS = 120.0
MOST = 2
"""Rounds, quiet or not, are at most so many times the quiet ones that are wanted."""


class SideFailed(RuntimeError):
    """A side's process ended, or fell silent; what it last wrote to stderr is in the words."""


class Worker:
    """A side's process, which waits at its gate. `with Worker(name, command) as worker:`."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: variables beside this process's own."""
        self.name = name
        self._program = Program(command, environment)
        self._process = self._program.process
        self.process = psutil.Process(self._process.pid)
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Worker:
        try:
            self.facts = self._answer(START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def window(
        self, seconds: float, steps: int = 1, limit: float = WINDOW_SECONDS, *, matmuls: bool = True
    ) -> dict[str, Any]:
        """Let it work for at least `seconds` and `steps`; what came of it. `matmuls`: time products
        of matrices beside, whose memory the process then keeps. Raises SideFailed, also when
        nothing has come for `limit` seconds."""
        assert self._process.stdin is not None
        asked = {"seconds": seconds, "steps": steps, "matmuls": matmuls}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failed("is gone") from None
        return self._answer(limit)

    def close(self) -> None:
        """Let it end; kill it if it does not."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for one in (*self.process.children(recursive=True), self.process):
                one.kill()
            self._process.wait()
        self._program.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._program.line(seconds)
        except queue.Empty:
            raise self._failed(f"has said nothing for {seconds:.0f} s") from None
        if not line:
            raise self._failed("has ended")
        return json.loads(line)

    def _failed(self, what: str) -> SideFailed:
        return SideFailed(f"{self.name} {what}:\n{self._program.last_words()}")


@dataclass(frozen=True)
class Rounds:
    """What the sides did, round by round; `kept` are the quiet rounds, all if there are none."""

    windows: list[dict[str, dict[str, Any]]]
    others: list[float]

    @property
    def quiet(self) -> int:
        return sum(share <= quiet.LIMIT for share in self.others)

    @property
    def discarded(self) -> int:
        return len(self.windows) - self.quiet if self.quiet else 0

    @property
    def kept(self) -> list[dict[str, dict[str, Any]]]:
        chosen = [w for w, o in zip(self.windows, self.others, strict=True) if o <= quiet.LIMIT]
        return chosen or self.windows

    def rates(self, side: str) -> list[float]:
        """Tokens a second of every round that counts."""
        return [window[side]["tokens"] / window[side]["seconds"] for window in self.kept]

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """How many times as fast `ours` was, in every round that counts."""
        return [a / b for a, b in zip(self.rates(ours), self.rates(theirs), strict=True)]

    def peak(self, side: str) -> float:
        """FLOP/s of the fastest matrix product in the precision of `side`, timed beside it."""
        return max(window[side]["peak_flops"] for window in self.windows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every window, the noisy ones too."""
        return {
            "quiet": self.quiet,
            "discarded": self.discarded,
            "others": [round(share, 4) for share in self.others],
            "rates": {
                side: [round(w[side]["tokens"] / w[side]["seconds"], 2) for w in self.windows]
                for side in self.windows[0]
            },
            "matmul_gflops": {
                side: [round(w[side]["matmul_flops"] / 1e9, 1) for w in self.windows]
                for side in self.windows[0]
            },
        }


def interleave(
    workers: Mapping[str, Worker], *, rounds: int, seconds: float, steps: int = 1
) -> Rounds:
    """Warm up once, then `rounds` quiet rounds if `MOST` times as many bring them."""
    processes = [worker.process for worker in workers.values()]
    for worker in workers.values():
        worker.window(seconds / 2, steps)
    windows: list[dict[str, dict[str, Any]]] = []
    others: list[float] = []
    while sum(share <= quiet.LIMIT for share in others) < rounds and len(others) < MOST * rounds:
        order = list(workers) if len(windows) % 2 == 0 else list(reversed(workers))
        with quiet.Watch(processes) as watch:
            found = {name: workers[name].window(seconds, steps) for name in order}
        windows.append({name: found[name] for name in workers})
        others.append(watch.others)
        said = ", ".join(
            f"{name} {window['tokens'] / window['seconds']:,.0f}" for name, window in found.items()
        )
        noise = "" if watch.others <= quiet.LIMIT else f"   others took {watch.others:.0%}: again"
        print(f"    {said} tokens/s{noise}", flush=True)
    return Rounds(windows, others)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def our_side(name: str, *arguments: str) -> Worker:
    """Our side (`benchmarks.peers.ours`) in the environment that the program makes for itself."""
    return Worker(name, python("benchmarks.peers.ours", *arguments), machine.short_waits())
