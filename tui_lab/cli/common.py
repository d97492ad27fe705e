"""What every command shares: the lab, the console, tables, sizes, progress without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.lab import Lab
from engine.text import to_json, visible

if TYPE_CHECKING:
    from rich.console import Console

_chosen: dict[str, Path | None] = {"lab": None}


def choose(lab: Path | None) -> None:
    """Remember the lab that was named before the command."""
    _chosen["lab"] = lab


def current_lab() -> Lab:
    """The lab of this invocation: `--lab`, `TUI_LAB_DIR`, or the working directory."""
    return Lab.find(_chosen["lab"])


def on_terminal() -> bool:
    return sys.stdout.isatty()


def console() -> Console:
    """A console for people; Rich itself leaves out colour when piped and under NO_COLOR."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not on_terminal())


def say(text: str = "") -> None:
    """One plain line on stdout, safe for a terminal."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One plain line on stderr: progress and remarks that must not mix with the output."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """One JSON object on one line, safe for a terminal."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """A table: drawn by Rich on a terminal, tab-separated when piped.

    `right`: indices of the columns of numbers.
    """
    cells = [[visible(str(cell), lines=False) for cell in row] for row in rows]
    if not on_terminal():
        for row in [list(headers), *cells]:
            say("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        drawn.add_column(header, justify="right" if index in right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console().print(drawn)


class ProgressLine:
    """How far a long piece of work is, on stderr: a line rewritten on a terminal; when piped, one
    now and then, and none for work that is short."""

    def __init__(self, label: str) -> None:
        self._label, self._on_terminal = label, sys.stderr.isatty()
        self._pause = 0.2 if self._on_terminal else 10.0
        self._next = time.monotonic() + self._pause
        self._shown = False

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._pause
        text = f"{self._label}: {100 * done // max(total, 1)} %"
        if self._on_terminal:
            self.clear()
            sys.stderr.write(text)
            sys.stderr.flush()
            self._shown = True
        else:
            note(text)

    def clear(self) -> None:
        """Take the line away, before anything else is said."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, `--yes` is the only yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        note(f"{question} Not done: pass --yes to do it without being asked.")
        return False
    note(question + " [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
