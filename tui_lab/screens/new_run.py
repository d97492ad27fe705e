"""The New run screen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from tui_lab.keys import bindings
from tui_lab.screens.base import LabScreen


class NewRunScreen(LabScreen):
    NAME = "new_run"
    BINDINGS = bindings(NAME)

    def compose_body(self) -> ComposeResult:
        yield Static("new_run")
