"""`tui-lab attach`: the app on a run that another process trains. Knows no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import InputError
from tui_lab.cli.common import current_lab

if TYPE_CHECKING:
    from engine.runs import RunSummary

NAMED = 5
"""Runs that an error names at most."""


def register(app: typer.Typer) -> None:
    app.command("attach", help="Open the app on a run of another process, to watch and steer it.")(
        attach
    )


def attach(
    run: Annotated[
        str | None,
        typer.Argument(help="Name of the run, also of one that has ended (the newest live one)."),
    ] = None,
) -> None:
    """Watch and steer a run that another process trains; leaving leaves it alone."""
    from engine.runs import find_run, list_runs
    from tui_lab.launch import launch

    lab = current_lab()
    found = find_run(lab, run) if run is not None else newest_live(list_runs(lab))
    launch(None, lab.root, attach=found.path)


def newest_live(runs: list[RunSummary]) -> RunSummary:
    """The run to attach to when none is named. Raises InputError telling which ones there are."""
    from engine.status import ACTIVE

    live = [run for run in runs if run.status in ACTIVE]
    if live:
        return max(live, key=lambda run: (run.created, run.name))
    names = [f"{run.name} ({run.status})" for run in runs[:NAMED]]
    if len(runs) > NAMED:
        names.append("…")
    there = f"there are {', '.join(names)}: name one to look at it; or " if names else ""
    raise InputError("no run is training in this lab", f"{there}start one: tui-lab train")
