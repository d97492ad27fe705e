"""The fork server's wall clock, which a trial can set. Installed before others keep `time.time`."""

from __future__ import annotations

import time

_true = time.time
_ahead = 0.0


def set_ahead(seconds: float) -> None:
    """From now on this process takes it for `seconds` later than it is."""
    global _ahead
    _ahead = seconds


def _told() -> float:
    return _true() + _ahead


def install() -> None:
    """Let every reader of `time.time` in this process, and in its forks, read this clock."""
    time.time = _told
