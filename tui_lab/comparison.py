"""Runs side by side: their curves on one axis, and what their configurations differ in.

Plain data from a run's files: no Textual, no torch. A `Curve` reads a long run once and then only
its new lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.schema import default_values
from engine.metrics import MetricsTail
from engine.series import decimate, smooth
from engine.toml import read_toml

LONGEST_GAP = 60.0
"""Seconds between two logged steps above which a run was not training (it was resumed later)."""


DRAWN = 2000
"""Columns that a curve is kept in: more than any terminal has, each with its lowest and highest."""

Points = tuple[np.ndarray, np.ndarray]


class Curve:
    """What one run's metrics say. `poll` reads what is new; the points are ready for drawing."""

    def __init__(self, run_path: Path) -> None:
        self.path = run_path
        self._tail = MetricsTail(run_path)
        self._points: dict[tuple[str, str], Points] = {}
        self._length = 0
        self._fresh = False  # there are lines that the points do not show yet
        self._not_before = 0.0

    def poll(self) -> bool:
        """Read the new lines of the run's files; says whether there are new points to draw.

        A very long run that grows is drawn anew less often, so that looking stays under 3 % of a
        core.
        """
        begun = time.monotonic()
        self._fresh |= bool(self._tail.poll())
        if self._points and (not self._fresh or begun < self._not_before):
            return False
        self._compute()
        self._fresh = False
        self._not_before = begun + 30 * (time.monotonic() - begun)
        return True

    def _compute(self) -> None:
        column = self._tail.metrics.column
        step, tokens = column("step"), column("tokens")
        # A row of an evaluation alone, between two logged steps, is no gap in the loss.
        logged, scored = np.isfinite(tokens), np.isfinite(column("val_loss"))
        axes = {
            "steps": step,
            "tokens": _filled(tokens, step, logged),
            "time": elapsed(column("time")),
        }
        # As many points as the Train screen averages over: a sixtieth of the run, within bounds.
        span = min(200, max(10, int(logged.sum()) // 60))
        weight = 1.0 - 2.0 / (span + 1)
        values = {
            "loss": smooth(column("loss")[logged], weight),
            "gradient norm": smooth(column("grad_norm")[logged], weight),
            "learning rate": column("lr")[logged],
        }
        points = {
            (quantity, axis): decimate(x[logged], y, DRAWN)
            for axis, x in axes.items()
            for quantity, y in values.items()
        }
        for axis, x in axes.items():
            points["validation", axis] = (x[scored], column("val_loss")[scored])
        self._points, self._length = points, int(logged.sum())

    def xy(self, quantity: str, axis: str) -> Points:
        """The quantity (smoothed over every point, where it is noisy) against the axis."""
        return self._points.get((quantity, axis), (_NONE, _NONE))

    def __len__(self) -> int:
        """Logged steps."""
        return self._length


_NONE = np.empty(0)


def _filled(tokens: np.ndarray, step: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tokens at every row, those in between by their step."""
    return np.interp(step, step[known], tokens[known]) if known.any() else np.zeros(len(step))


def elapsed(times: np.ndarray) -> np.ndarray:
    """Seconds of training at each point, from wall-clock times: pauses and jumps are left out."""
    if not len(times):
        return times
    passed = np.diff(times, prepend=times[0])
    return np.cumsum(np.where((passed >= 0) & (passed <= LONGEST_GAP), passed, 0.0))


def read_values(path: Path) -> dict[str, Any]:
    """A configuration file as flat `section.field` values; empty when it cannot be read.

    Read as plain TOML, so that fields of another version are compared too. A field that is not in
    it has its default.
    """
    try:
        sections = read_toml(path, follow=False)
    except (OSError, ValueError):
        return {}
    flat = default_values()
    for name, section in sections.items():
        if isinstance(section, Mapping):
            flat |= {f"{name}.{key}": value for key, value in section.items()}
        else:
            flat[name] = section
    return flat


def differences(values: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The fields in which the configurations differ: name, and the value in each as text."""
    keys = dict.fromkeys(key for one in values for key in one)
    rows = [(key, [written(one.get(key)) for one in values]) for key in keys]
    return [(key, texts) for key, texts in rows if len(set(texts)) > 1]


def written(value: Any) -> str:
    """A configuration's value in few characters; a dash where the field is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(repr(item) if isinstance(item, str) else written(item) for item in value)
    return str(value)
