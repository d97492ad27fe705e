"""Generated text on a terminal or into a pipe: coloured by probability, or plain.

Knows nothing of models. On a terminal Rich decides about colour (NO_COLOR, TERM=dumb); text from
outside is made visible here, so that a sample cannot steer the terminal.
"""

from __future__ import annotations

import sys

from engine.text import visible
from tui_lab.cli.common import console, on_terminal

LEVELS = ((0.7, "green"), (0.4, "cyan"), (0.15, "yellow"), (0.05, "magenta"), (0.0, "red"))
"""From a probability up, this colour: of the terminal's own 16, so that any theme fits."""


def colour(probability: float) -> str:
    """The colour of a token; what is not a number is a surprise."""
    return next((name for least, name in LEVELS if probability >= least), LEVELS[-1][1])


class Painter:
    """Writes pieces of text to stdout as they come."""

    def __init__(self) -> None:
        self._console = console() if on_terminal() else None
        self._last = "\n"

    def prompt(self, text: str) -> None:
        self._write(text, "bold")

    def token(self, text: str, probability: float) -> None:
        self._write(text, colour(probability))

    def plain(self, text: str) -> None:
        self._write(text, None)

    def end(self) -> None:
        """Leave the cursor at the start of a line."""
        if self._last != "\n":
            self._write("\n", None)

    def _write(self, text: str, style: str | None) -> None:
        if text:
            self._last = text[-1]
            if self._console:
                self._console.out(visible(text), style=style, end="", highlight=False)
            else:
                sys.stdout.write(visible(text))
            sys.stdout.flush()
