"""Opening the app in a terminal, and what is left to do when it closes."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.errors import InputError
from engine.lab import Lab


def launch(start: str | None, lab: Path | None = None) -> None:
    """Open the app; `start` names a preset to train at once. InputError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            "the app needs a terminal",
            "without one: tui-lab train --config micro (or tui-lab --help)",
        )
    from tui_lab.app import LabApp
    from tui_lab.settings import Settings

    app = LabApp(Lab.find(lab), Settings.load(), start=start)
    app.run()
    if app.return_code:
        sys.exit(app.return_code)
