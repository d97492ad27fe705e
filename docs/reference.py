"""Write the tables of commands and keys into README.md, from the program itself.

python docs/reference.py            # a test fails when the README is out of date
"""

from __future__ import annotations

import re
from pathlib import Path

import typer

from tui_lab.cli import app
from tui_lab.keys import SCREENS, keys_of

README = Path(__file__).resolve().parent.parent / "README.md"


def command_rows() -> list[str]:
    """One row a command; a group's subcommands stand in its row."""
    rows = []
    for name, command in typer.main.get_command(app).commands.items():
        subcommands = getattr(command, "commands", {})
        parts = " " + " \\| ".join(subcommands) if subcommands else ""
        summary = (command.help or "").strip().split("\n")[0]
        rows.append(f"| `{name}{parts}` | {summary} |")
    return rows


def key_rows() -> list[str]:
    """One row a screen."""
    rows = []
    for screen, title in SCREENS.items():
        keys = " · ".join(f"`{key.written}` {key.label}" for key in keys_of(screen) if key.label)
        rows.append(f"| {title} | {keys} |")
    return rows


def with_tables(text: str) -> str:
    """README's text with both tables as they are now."""
    for marker, rows in (("commands", command_rows()), ("keys", key_rows())):
        block = f"<!-- {marker} -->\n" + "\n".join(rows) + f"\n<!-- /{marker} -->"
        pattern = f"<!-- {marker} -->.*?<!-- /{marker} -->"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
