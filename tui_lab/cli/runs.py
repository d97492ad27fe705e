"""`tui-lab runs`: every run of the lab in one table. Knows no torch, and reads small files only."""

from __future__ import annotations

import time
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
_WIDE = ("tokens", "time", "params", "saved", "size")  # left out where there is no room
_GLYPHS = {"running": "●", "paused": "‖", "finished": "✓", "failed": "✗", "crashed": "✗"}


def register(app: typer.Typer) -> None:
    app.command("runs", help="List all runs: status, step, losses, size.")(runs)


def runs(
    filter: Annotated[
        str, typer.Option("--filter", "-f", help="Only runs with this in name, preset or corpus.")
    ] = "",
    sort: Annotated[str, typer.Option(help=f"One of {', '.join(SORTS)}.")] = "age",
    plot: Annotated[bool, typer.Option("--plot", help="Draw their loss curves as text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
) -> None:
    """List all runs, the newest first."""
    from engine.runs import list_runs

    if sort not in SORTS:
        raise InputError(f"cannot sort by '{sort}'", did_you_mean(sort, SORTS))
    found = sorted(list_runs(common.current_lab()), key=SORTS[sort])
    wanted = filter.lower()
    found = [
        run
        for run in found
        if any(wanted in text.lower() for text in (run.name, run.preset, run.corpus, run.status))
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


def _table(found: list[RunSummary]) -> None:
    """All columns where there is room (or no terminal); the essential ones at 80 columns."""
    cells: list[tuple[str, bool, Any]] = [  # header, whether a number, how to show it
        ("name", False, lambda run: run.name if run.own else f"{run.name} (shipped)"),
        ("status", False, lambda run: f"{_GLYPHS.get(run.status, '·')} {run.status}"),
        ("step", True, _progress),
        ("loss", True, lambda run: format.number(run.loss, 3)),
        ("val loss", True, lambda run: format.number(run.val_loss, 3)),
        ("tokens", True, lambda run: format.count(run.tokens)),
        ("time", True, lambda run: format.duration(run.seconds) if run.seconds else "–"),
        ("params", True, lambda run: format.count(run.n_parameters) if run.n_parameters else "–"),
        ("age", True, lambda run: format.ago(time.time() - run.created) if run.created else "–"),
        ("saved", True, lambda run: str(run.n_checkpoints)),
        ("size", True, lambda run: format.size(run.bytes)),
    ]
    if common.on_terminal() and common.console().width < 110:
        cells = [cell for cell in cells if cell[0] not in _WIDE]
    rows = [[show(run) for _, _, show in cells] for run in found]
    right = [index for index, (_, number, _) in enumerate(cells) if number]
    common.table([header for header, _, _ in cells], rows, right=right)


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


def _progress(run: RunSummary) -> str:
    step = format.thousands(run.step)
    return f"{step} / {format.thousands(run.max_steps)}" if run.max_steps else step


def _lowest_first(loss: float | None) -> float:
    return loss if loss is not None and loss == loss else float("inf")
