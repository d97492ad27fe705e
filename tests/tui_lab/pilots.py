"""Driving the app in tests: a frozen clock and pace, and waiting for what is to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.events import Event
from engine.lab import Lab
from tests.tui_lab import fakes
from tui_lab.app import LabApp
from tui_lab.pace import Pace
from tui_lab.settings import Settings
from tui_lab.state import RunState


class StillPace(Pace):
    """Costs nothing by decree: a picture must not depend on how busy the machine is."""

    def measure(self, drawn: int = 0) -> None:
        self.share = 0.004


def make_app(
    lab: Path, session: Any = None, settings: Settings | None = None, **values: Any
) -> LabApp:
    app = LabApp(
        Lab(lab), settings or Settings(), session=session, clock=lambda: fakes.NOON, **values
    )
    app.pace = StillPace(20.0, 0.03, 1e9)
    app.pace.measure()
    return app


def app_with_history(lab: Path, until: int, *more: Event, settings: Settings | None = None):
    """An app that shows a run which is at step `until`, and then says `more`."""
    app = make_app(lab, settings=settings)
    told = fakes.config()
    app.run_state = RunState(told, "micro")
    for event in (*fakes.history(told, until), *more):
        app.run_state.apply(event)
    return app


async def until(pilot, condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Let the app run until `condition` holds; fail when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        await pilot.pause(0.02)


def shown(app: LabApp) -> str:
    """Everything on the screen as plain text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)
