"""What the screen of the newest app session costs, kept where `doctor` finds it.

One small JSON file in the user's cache directory, `screen.json`: the app writes it every ten
seconds and when it ends, a later session over an earlier one. Knows nothing of how it is measured.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

MAX_BYTES = 4096


@dataclass(frozen=True)
class ScreenCost:
    """`time`: when it was written; `seconds`: of the session until then. `share` of a core (0 to
    1), `bytes_per_second` and `looks_per_second` are of its last seconds."""

    pid: int
    mark: str  # tells the process from a later one of the same number
    time: float
    seconds: float
    bytes: int
    bytes_per_second: float
    share: float
    looks_per_second: float
    columns: int
    lines: int
    slow_link: bool

    @property
    def running(self) -> bool:
        """Whether that session still draws."""
        from engine.status import process_mark

        return bool(self.mark) and process_mark(self.pid) == self.mark


def path() -> Path:
    from engine.machine import cache_dir

    return cache_dir() / "screen.json"


def keep(cost: ScreenCost) -> None:
    """Write it; nothing happens where that is not allowed."""
    from engine.atomic import write_json

    with suppress(OSError, ValueError):
        path().parent.mkdir(parents=True, exist_ok=True)
        write_json(path(), asdict(cost))


def last() -> ScreenCost | None:
    """The newest session's; None where there is none, or nothing that could be one."""
    from engine.plain_file import read_plain

    try:
        told = json.loads(read_plain(path(), MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    values: dict[str, Any] = {}
    for field in fields(ScreenCost):
        value = told.get(field.name)
        kind = {"int": int, "float": float, "str": str, "bool": bool}[str(field.type)]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            return None
        values[field.name] = value
    return ScreenCost(**values)
