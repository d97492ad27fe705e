"""One side of a contest, in a process of its own: it works in windows, when it is told to.

The process that compares (`benchmarks.interleave`) writes one JSON line for a window on this
process's stdin and reads one line of figures from its stdout. In between the loop stands still
inside `Gate.passed`, so that the other sides have the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, TextIO

import psutil
import torch

from engine.bench.limits import matmul_peak, synchronize
from engine.bench.shapes import SHAPES
from engine.device import memory

WARM_STEPS = 4
"""Steps before a side says that it is ready: compiling, and finding memory."""
BESIDE_SECONDS = 0.1
"""Beside every window a matrix product is timed for so long: one of a fixed size in float32, which
tells how the machine was, and the fastest in the side's own precision."""
FIXED = {"cpu": 1024, "cuda": 4096}


def add_side_options(parser: argparse.ArgumentParser) -> None:
    """What every peer's side is told: the shape, where it computes, and how."""
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")


class Gate:
    """`while gate.passed(): step()`; or `passed` is called after every step of somebody's loop."""

    def __init__(
        self, device: torch.device, tokens_per_step: int, precision: str, **facts: Any
    ) -> None:
        """`facts`: what is told of this side once it is ready."""
        self.device, self.tokens_per_step, self.precision = device, tokens_per_step, precision
        self.facts = facts
        self._out = _take_stdout()
        self._process = psutil.Process()
        self._began = time.perf_counter()
        self._ready = False
        self._window: dict[str, Any] | None = None
        self._opened = 0.0  # the moment at which the window was opened, and the step of it
        self._opened_step = 0
        self._step = -1

    def passed(self, step: int | None = None) -> bool:
        """Called with the number of steps done (None: one more than before); waits while no window
        is open. False when there is nothing more to do."""
        self._step = self._step + 1 if step is None else step
        if not self._ready:
            if self._step < WARM_STEPS:
                return True
            synchronize(self.device)
            self._ready = True
            seconds = time.perf_counter() - self._began
            self._say({"ready_seconds": seconds, "precision": self.precision, **self.facts})
            return self._wait()
        assert self._window is not None
        enough = self._step - self._opened_step >= self._window.get("steps", 1)
        if not enough or time.perf_counter() - self._opened < self._window.get("seconds", 0.0):
            return True
        synchronize(self.device)
        seconds, steps = time.perf_counter() - self._opened, self._step - self._opened_step
        told = {
            "seconds": seconds,
            "steps": steps,
            "tokens": steps * self.tokens_per_step,
            "step": self._step,
            "memory_bytes": self._process.memory_info().rss,
            "peak_memory_bytes": self._peak(),
        }
        if self._window.get("matmuls", True):
            fixed = FIXED.get(self.device.type, 1024)
            told["matmul_flops"] = matmul_peak(self.device, "float32", BESIDE_SECONDS, (fixed,))
            told["peak_flops"] = matmul_peak(self.device, self.precision, BESIDE_SECONDS)
        self._say(told)
        return self._wait()

    def _wait(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        self._window = json.loads(line)
        self._opened, self._opened_step = time.perf_counter(), self._step
        return True

    def _peak(self) -> int:
        """The most memory that this process had: resident, or on a GPU what the allocator took and
        the context beside it."""
        if self.device.type != "cuda":
            return memory(self.device).peak
        free, total = torch.cuda.mem_get_info(self.device)
        beside = total - free - torch.cuda.memory_reserved(self.device)
        return beside + torch.cuda.max_memory_reserved(self.device)

    def _say(self, record: dict[str, Any]) -> None:
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()


def _take_stdout() -> TextIO:
    """Stdout for the gate alone: whatever else is printed goes to stderr."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept
