"""A one-line text field whose value is what it shows.

What is pasted, remembered or preset may hold anything: it is made visible as it enters, so that
nobody submits what he did not see, and the cursor stands where the terminal shows it.
"""

from __future__ import annotations

from typing import Any

from textual.widgets import Input

from engine.text import visible

LONGEST = 10_000
"""Characters that a field takes: each key lays all of them out."""


COMPACT = "-textual-compact"
"""The class that Textual's `compact` gives a widget; it styles it at once, and again when it is
mounted."""


class TextField(Input):
    """Compact, and without Textual's validation, which styles it whenever the focus goes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, validate_on=())
        self.add_class(COMPACT, update=False)

    def validate_value(self, value: str) -> str:
        return visible(value, lines=False)[:LONGEST]
