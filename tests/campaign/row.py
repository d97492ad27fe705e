"""One row of the matrix: a fault, what must happen, and a function that makes the fault n times."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign import rows

Progress = Callable[[int], None]
"""Told how many trials are done."""


@dataclass
class Result:
    """What a row found. `failures`: one line for each trial that did not end as it must, saying
    how to see it again (seed, step, file). `figures`: what is reported, by name."""

    trials: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """`run(trials, folder, progress)` makes the fault; `folder` is empty and the row's own.

    `number`: where it stands in the matrix (several rows may share one: 12a, 12b). `slice` and
    `full`: trials in the default tests (a few seconds) and in the campaign. `quiet`: the row
    measures time and needs the machine for itself.
    """

    number: str
    fault: str
    must: str
    slice: int
    full: int
    run: Callable[[int, Path, Progress], Result]
    quiet: bool = False
    name: str = ""


def all_rows() -> list[Row]:
    """Every row, in the matrix's order; its name is its module's."""
    found = []
    for info in pkgutil.iter_modules(rows.__path__):
        row = importlib.import_module(f"{rows.__name__}.{info.name}").ROW
        found.append(Row(**{**row.__dict__, "name": info.name}))
    return sorted(found, key=lambda row: (int(row.number.rstrip("abcdef")), row.number))
