"""The runs as rows of a table: what each column says, sorting, filtering. No widgets, no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tui_lab.format import ago, count, duration, number, size, thousands
from tui_lab.widgets.table import Cell, Column, Row

if TYPE_CHECKING:
    from engine.runs import RunSummary

STATUS = {
    "running": ("●", "good"),
    "paused": ("‖", "warn"),
    "stalled": ("!", "warn"),
    "finished": ("✓", ""),
    "stopped": ("■", ""),
    "failed": ("✗", "bad"),
    "crashed": ("✗", "bad"),
    "unknown": ("?", "muted"),
}
"""Glyph and tone of each status; the word always stands beside the glyph."""

COLUMNS = (
    Column("mark", ""),
    Column("name", "run", grow=True, most=40, least=14),
    Column("status", "status"),
    Column("step", "step", right=True),
    Column("loss", "loss", right=True, priority=2),
    Column("best", "best val", right=True, priority=1),
    Column("tokens", "tokens", right=True, priority=6),
    Column("parameters", "params", right=True, priority=4),
    Column("seconds", "trained", right=True, priority=5),
    Column("created", "age", right=True, priority=3),
    Column("bytes", "size", right=True, priority=7),
    Column("checkpoints", "saved", right=True, priority=10),
    Column("preset", "preset", priority=9, most=16),
    Column("corpus", "corpus", priority=8, most=20),
)


def _unknown_last(value: float | None) -> float:
    return float("inf") if value is None else value


SORTS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "created": (lambda run: run.created, True),
    "name": (lambda run: run.name.lower(), False),
    "status": (lambda run: list(STATUS).index(run.status) if run.status in STATUS else 99, False),
    "step": (lambda run: run.step, True),
    "loss": (lambda run: _unknown_last(run.loss), False),
    "best": (lambda run: _unknown_last(run.best_val_loss), False),
    "tokens": (lambda run: run.tokens, True),
    "parameters": (lambda run: run.n_parameters, True),
    "seconds": (lambda run: run.seconds, True),
    "bytes": (lambda run: run.bytes, True),
    "checkpoints": (lambda run: run.n_checkpoints, True),
    "preset": (lambda run: run.preset, False),
    "corpus": (lambda run: run.corpus, False),
}
"""What each column sorts by, and whether its natural order is downward."""


def matches(run: RunSummary, words: Sequence[str]) -> bool:
    """Whether all words occur in what the table says of the run."""
    text = f"{run.name} {run.status} {run.preset} {run.corpus}".lower()
    return all(word in text for word in words)


def ordered(runs: Sequence[RunSummary], by: str, down: bool) -> list[RunSummary]:
    """Sorted by a column; equal ones by name, so that nothing jumps about."""
    key, _ = SORTS[by]
    return sorted(sorted(runs, key=lambda run: run.name), key=key, reverse=down)


def run_row(run: RunSummary, mark: str, now: float) -> Row:
    """One run; `mark` is the letter that stands for it on the chart, or nothing."""
    glyph, tone = STATUS.get(run.status, STATUS["unknown"])
    step = thousands(run.step)
    if run.max_steps:
        step += f" / {thousands(run.max_steps)}"
    return Row(
        run.name,
        (
            Cell(mark, "strong"),
            run.name if run.own else f"{run.name} (shipped)",
            Cell(f"{glyph} {run.status}", tone),
            step,
            number(run.loss, 3),
            number(run.best_val_loss, 3),
            count(run.tokens) if run.tokens else "–",
            count(run.n_parameters) if run.n_parameters else "–",
            duration(run.seconds) if run.seconds else "–",
            Cell(ago(max(0.0, now - run.created)), "muted"),
            Cell(size(run.bytes), "muted"),
            Cell(str(run.n_checkpoints), "muted"),
            Cell(run.preset or "–", "muted"),
            Cell(run.corpus or "–", "muted"),
        ),
    )


def heading(shown: int, total: int, marks: Mapping[str, str]) -> str:
    """The line above the table."""
    text = f"{total} run{'s' * (total != 1)}"
    if shown != total:
        text = f"{shown} of {text}"
    return f"{text}, {len(marks)} marked" if marks else text
