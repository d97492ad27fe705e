"""What the tests of the browsing screens share: the app at a fixed time, and waiting for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.lab import Lab
from tests.tui_lab.fakes import FakeSession
from tests.tui_lab.labs import NOW
from tui_lab.app import LabApp
from tui_lab.settings import Settings


class Browser(LabApp):
    """Opens on one screen; keeps what it was told to show, so that tests can read it."""

    CSS_PATH = Path(inspect.getfile(LabApp)).with_name("app.tcss")

    def __init__(self, lab: Lab, screen: str, **settings: Any) -> None:
        super().__init__(
            lab, Settings(refresh=30.0, **settings), session=FakeSession(), clock=lambda: NOW
        )
        self.first = screen
        self.said: list[str] = []

    def on_mount(self) -> None:
        self.go(self.first)

    def notify_safe(self, text: str, *, title: str = "", severity: str = "information") -> None:
        self.said.append(f"{title} {text}".strip())
        super().notify_safe(text, title=title, severity=severity)

    def _show_status(self, screen: Any) -> None:
        """The top bar's figures are measured: they would differ from picture to picture."""


async def until(pilot: Any, condition: Callable[[], Any]) -> None:
    """Wait for something that a thread brings about."""
    for _ in range(600):
        if condition():
            return
        await pilot.pause(0.01)
    raise AssertionError("it never came to pass")


def screen_text(app: LabApp) -> str:
    """What stands on the screen, line by line, as a terminal would show it."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(s.text for s in line)[:width] for line in lines[:height])
