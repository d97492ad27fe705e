"""A run's history on disk: `metrics.jsonl` and `events.jsonl`, read whole or followed as they grow.

Both are one JSON object a line, append-only. Readers take a torn last line for not yet written,
and pass over lines they cannot read and fields they do not know. Knows no torch and not who writes.

A resumed run appends. What an abandoned future left behind is dropped by the reader: a line
`{"resumed": N}` drops the rows of steps after N, and a row whose step is lower than the last one
drops the rows from its step on. Lines of the same step are one row, later values winning: so an
evaluation's `val_loss` joins the row of the step it was made at. `events.jsonl` is a log: there
nothing is dropped.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from engine.plain_file import open_plain

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
COLUMNS = (
    "step",
    "tokens",
    "loss",
    "val_loss",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "memory_bytes",
    "epoch",
    "time",
    "router_balance",
    "expert_busiest",
    "expert_idlest",
    "router_entropy",
)
MAX_LINE = 4_000_000  # bytes; a longer line is passed over
PIECE = 4 << 20  # bytes; what is parsed at once takes up to thirty times that
_NAN = float("nan")


class JsonlTail:
    """Follows one JSONL file: each `poll` returns the objects of the lines finished since.

    `restarts` counts how often the file was found to be another one, or shorter than what had been
    read of it: everything read before is then void and reading begins anew. `size` is its length
    when it was last opened, `offset` how much of it was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarts = 0
        self.size = self.offset = 0
        self._which: tuple[int, int] | None = None
        self._rest = b""
        self._skipping = False

    def poll(self) -> list[dict[str, Any]]:
        """The new objects, in order; none when the file is not there (yet), or no plain file."""
        return [record for piece in self.pieces() for record in piece]

    def pieces(self, size: int = PIECE) -> Iterator[list[dict[str, Any]]]:
        """As `poll`, `size` bytes of the file at a time: memory stays bounded whatever its size."""
        with suppress(OSError), open_plain(self.path) as file:
            about = os.fstat(file.fileno())
            which = about.st_dev, about.st_ino
            if about.st_size < self.offset or (self._which or which) != which:
                self.offset, self._rest, self._skipping = 0, b"", False
                self.restarts += 1
            self._which, self.size = which, about.st_size
            file.seek(self.offset)
            while piece := file.read(size):
                self.offset += len(piece)
                yield parse_lines(self._finished(piece))

    def _finished(self, piece: bytes) -> list[bytes]:
        """The whole lines that `piece` completes; the torn end is kept for the next piece."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if self._skipping and lines:
            lines.pop(0)
            self._skipping = False
        if len(self._rest) > MAX_LINE:
            self._rest, self._skipping = b"", True
        return lines


def parse_lines(lines: list[bytes]) -> list[dict[str, Any]]:
    """The objects of JSON lines; whatever is no object is left out."""
    filled = [line for line in lines if line and len(line) <= MAX_LINE]
    try:
        # One call for all of them: three times as fast as one a line.
        values = json.loads(b"[" + b",".join(filled) + b"]")
        if len(values) != len(filled):
            values = _one_by_one(filled)
    except (ValueError, RecursionError):
        values = _one_by_one(filled)
    return [value for value in values if type(value) is dict]


def _one_by_one(lines: list[bytes]) -> list[Any]:
    values = []
    for line in lines:
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return values


class Metrics:
    """Rows by ascending step, kept as columns of float64; NaN where a row lacks a value."""

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in COLUMNS}
        self._steps = self._columns["step"]

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Fold records in, by the rules in the module's docstring."""
        steps = self._steps
        append = [(name, column.append) for name, column in self._columns.items()]
        numbers = (float, int)
        last = steps[-1] if steps else -1.0
        for record in records:
            step = record.get("step")
            if type(step) is not int or not 0 <= step < 2**53:
                resumed = record.get("resumed")
                if type(resumed) is int and 0 <= resumed < 2**53:
                    self._drop_from(resumed + 1)
                    last = steps[-1] if steps else -1.0
                continue
            if step > last:
                for name, put in append:
                    value = record.get(name, _NAN)
                    put(value if type(value) in numbers and -1e300 < value < 1e300 else _NAN)
                last = step
                continue
            row = bisect_left(steps, step)
            if step < last and "loss" in record:
                self._drop_from(step)
                self.add([record])
            elif steps[row] == step:
                self._merge(row, record)
            last = steps[-1]

    def _merge(self, row: int, record: dict[str, Any]) -> None:
        for name, column in self._columns.items():
            value = record.get(name)
            if type(value) in (int, float):
                column[row] = value if -1e300 < value < 1e300 else _NAN

    def _drop_from(self, step: int) -> None:
        row = bisect_left(self._steps, step)
        for column in self._columns.values():
            del column[row:]

    def clear(self) -> None:
        self._drop_from(0)

    def column(self, name: str) -> np.ndarray:
        """A copy of one of COLUMNS, float64."""
        return np.array(self._columns[name], dtype=np.float64)

    def columns(self) -> dict[str, np.ndarray]:
        return {name: self.column(name) for name in COLUMNS}


class MetricsTail:
    """A run's metrics as they grow; `metrics` holds all rows read so far."""

    def __init__(self, run_path: Path) -> None:
        self._tail = JsonlTail(run_path / METRICS_FILE)
        self._restarts = 0
        self.metrics = Metrics()

    def poll(self) -> int:
        """Read on; says how many new lines there were."""
        count = 0
        for records in self._tail.pieces():
            self._forget_replaced()
            self.metrics.add(records)
            count += len(records)
        self._forget_replaced()
        return count

    def _forget_replaced(self) -> None:
        if self._tail.restarts != self._restarts:
            self._restarts = self._tail.restarts
            self.metrics.clear()


def read_metrics(run_path: Path) -> dict[str, np.ndarray]:
    """A run's whole metrics as columns by name (COLUMNS), rows by ascending step.

    Empty columns when the run has none. NaN stands for a value that is absent or not finite.
    """
    tail = MetricsTail(run_path)
    tail.poll()
    return tail.metrics.columns()


def read_events(run_path: Path, kinds: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """A run's events, oldest first; with `kinds` only those (`eval_done`, `alert`, …)."""
    wanted = None if kinds is None else set(kinds)
    return [
        record
        for piece in JsonlTail(run_path / EVENTS_FILE).pieces()
        for record in piece
        if isinstance(record.get("event"), str) and (wanted is None or record["event"] in wanted)
    ]
