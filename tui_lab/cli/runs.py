"""`tui-lab runs`: every run of the lab in one table; of those alive also where, since when, what
they do and how fast. Knows no torch, and reads small files only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import InputError, did_you_mean
from tui_lab import format
from tui_lab.cli import common

if TYPE_CHECKING:
    from engine.runs import RunSummary

SORTS = {
    "age": lambda run: -run.created,
    "name": lambda run: run.name,
    "status": lambda run: run.status,
    "step": lambda run: -run.step,
    "loss": lambda run: _lowest_first(run.loss),
    "val-loss": lambda run: _lowest_first(run.best_val_loss),
    "tokens": lambda run: -run.tokens,
    "time": lambda run: -run.seconds,
    "params": lambda run: -run.n_parameters,
    "size": lambda run: -run.bytes,
}
_GLYPHS = {
    "running": "●",
    "paused": "‖",
    "stalled": "!",
    "finished": "✓",
    "failed": "✗",
    "crashed": "✗",
}


def register(app: typer.Typer) -> None:
    app.command("runs", help="List all runs: status, step, losses, size; where one is alive.")(runs)


def runs(
    filter: Annotated[
        str, typer.Option("--filter", "-f", help="Only runs with this in name, preset or corpus.")
    ] = "",
    alive: Annotated[
        bool, typer.Option("--alive", "-a", help="Only runs that a process has right now.")
    ] = False,
    sort: Annotated[str, typer.Option(help=f"One of {', '.join(SORTS)}.")] = "age",
    plot: Annotated[bool, typer.Option("--plot", help="Draw their loss curves as text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
) -> None:
    """List all runs, the newest first."""
    from engine.runs import list_runs
    from engine.status import ACTIVE

    if sort not in SORTS:
        raise InputError(f"cannot sort by '{sort}'", did_you_mean(sort, SORTS))
    found = sorted(list_runs(common.current_lab()), key=SORTS[sort])
    wanted = filter.lower()
    found = [
        run
        for run in found
        if any(wanted in text.lower() for text in (run.name, run.preset, run.corpus, run.status))
        and (run.status in ACTIVE or not alive)
    ]
    if as_json:
        for run in found:
            common.say_json(as_record(run))
    elif found:
        _table(found)
        if plot:
            _plot(found)
    elif filter:
        common.note(f"no run matches '{filter}'")
    elif alive:
        common.note("no run is alive: tui-lab train --detach starts one")
    else:
        common.note("no runs yet: tui-lab train makes one")


def as_record(run: RunSummary) -> dict[str, Any]:
    """A run as one flat JSON object; losses that are not finite become null."""
    from dataclasses import asdict
    from math import isfinite

    record = asdict(run) | {"path": str(run.path)}
    return {
        key: None if isinstance(value, float) and not isfinite(value) else value
        for key, value in record.items()
    }


def _progress(run: RunSummary) -> str:
    step = format.thousands(run.step)
    return f"{step} / {format.thousands(run.max_steps)}" if run.max_steps else step


def _status(run: RunSummary) -> str:
    silence = f" {format.ago(run.still)}" if run.status == "stalled" else ""
    return f"{_GLYPHS.get(run.status, '·')} {run.status}{silence}"


def _phase(run: RunSummary) -> str:
    share = f" {format.percent(run.phase_done / run.phase_total)}" if run.phase_total else ""
    return (run.phase or "–") + share


def _since(when: float) -> float:
    from engine.status import seconds_since

    return seconds_since(when)


@dataclass(frozen=True)
class _Column:
    """`rank`: the higher, the sooner it is left out where there is no room; 0 always stays."""

    header: str
    rank: int
    show: Callable[[RunSummary], str]
    number: bool = True


_COLUMNS = (
    _Column("name", 0, lambda run: run.name if run.own else f"{run.name} (shipped)", number=False),
    _Column("status", 0, _status, number=False),
    _Column("step", 0, _progress),
    _Column("loss", 3, lambda run: format.number(run.loss, 3)),
    _Column("val loss", 5, lambda run: format.number(run.val_loss, 3)),
    _Column("tokens", 9, lambda run: format.count(run.tokens)),
    _Column("time", 8, lambda run: format.duration(run.seconds) if run.seconds else "–"),
    _Column("params", 7, lambda run: format.count(run.n_parameters) if run.n_parameters else "–"),
    _Column("age", 6, lambda run: format.ago(_since(run.created)) if run.created else "–"),
    _Column("saved", 11, lambda run: str(run.n_checkpoints)),
    _Column("size", 10, lambda run: format.size(run.bytes)),
)

_ALIVE = (
    _Column("phase", 2, _phase, number=False),
    _Column("a step", 2, lambda run: format.duration(run.step_seconds or math.inf)),
    _Column("since", 1, lambda run: f"{format.ago(_since(run.since))} ago" if run.since else "–"),
    _Column("process", 1, lambda run: f"{run.pid} on {run.host}", number=False),
)
"""What only a living run has."""


def _table(found: list[RunSummary]) -> None:
    """All columns where there is room (or no terminal); the essential ones elsewhere."""
    from engine.status import ACTIVE

    columns = list(_COLUMNS)
    if any(run.status in ACTIVE for run in found):
        columns[2:2] = [
            replace(
                column,
                show=lambda run, show=column.show: show(run) if run.status in ACTIVE else "–",
            )
            for column in _ALIVE
        ]
    cells = [[column.header, *(column.show(run) for run in found)] for column in columns]
    if common.on_terminal():
        _leave_out(columns, cells, common.console().width)
    right = [index for index, column in enumerate(columns) if column.number]
    headers, *rows = zip(*cells, strict=True)
    common.table(headers, rows, right=right)


def _leave_out(columns: list[_Column], cells: list[list[str]], width: int) -> None:
    """Take out what ranks lowest, until the rest fits; both lists are changed."""
    while sum(max(map(len, column)) + 3 for column in cells) > width:
        worst = max(range(len(columns)), key=lambda index: columns[index].rank)
        if columns[worst].rank == 0:
            return
        del columns[worst], cells[worst]


def _plot(found: list[RunSummary]) -> None:
    from tui_lab.cli.plot import MOST, loss_chart

    console = common.console()
    colour = common.on_terminal() and console.color_system is not None
    width = console.width if common.on_terminal() else 100
    chart = loss_chart(found, width, 20, colour=colour)
    if not chart:
        common.note("no step is logged yet: nothing to draw")
        return
    typer.echo(chart, color=colour)
    if len(found) > MOST:
        common.note(f"drawn: the first {MOST} of {len(found)}; --filter and --sort choose")


def _lowest_first(loss: float | None) -> float:
    return loss if loss is not None and loss == loss else float("inf")
