"""`tui-lab init`: make a lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.lab import KINDS, Lab
from tui_lab.cli.common import say


def register(app: typer.Typer) -> None:
    app.command("init", help="Make a lab: a directory for presets, corpora and runs.")(init)


def init(
    directory: Annotated[Path, typer.Argument(help="Made if it is not there.")] = Path(),
) -> None:
    """Make configs/, corpus/ and checkpoints/ in DIRECTORY; what is there already stays."""
    lab = Lab.init(directory.expanduser())
    folders = ", ".join(f"{kind}/" for kind in KINDS)
    say(f"lab in {lab.root} ({folders})")
    say("The shipped presets and corpora work in it; files of your own go before them.")
    say(f"next: cd {lab.root} && tui-lab")
