"""A figure with its target: what the benchmarks are run for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """`value` against `target`, which it reaches from below (`at_least`) or from above.

    `group` is what the page sorts by. `low` and `high` are the lowest and highest of `rounds`
    comparisons, `discarded` how many more did not count because other processes were at work.
    `value` None: never got there; `target` None: told, and not aimed at.
    """

    group: str
    name: str
    value: float | None
    target: float | None
    at_least: bool = True
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    discarded: int = 0
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"met": self.met}

    def __str__(self) -> str:
        edge = "" if self.low is None else f" ({self.low:.2f} to {self.high:.2f})"
        figure = "never" if self.value is None else f"{self.value:.3g}"
        if self.target is None:
            return f"{self.name}: {figure}{edge}"
        word = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {figure}{edge}, {word} {self.target:g}: {verdict}"


def of_rounds(
    group: str, name: str, values: Sequence[float], target: float | None, **more: Any
) -> Ratio:
    """The median of several comparisons, with its spread."""
    return Ratio(
        group,
        name,
        statistics.median(values),
        target,
        low=min(values),
        high=max(values),
        rounds=len(values),
        **more,
    )
