"""A one-line text field whose value is what it shows.

What is pasted, remembered or preset may hold anything: it is made visible as it enters, so that
nobody submits what he did not see, and the cursor stands where the terminal shows it.
"""

from __future__ import annotations

from textual.widgets import Input

from engine.text import visible

LONGEST = 10_000
"""Characters that a field takes: each key lays all of them out."""


class TextField(Input):
    def validate_value(self, value: str) -> str:
        return visible(value, lines=False)[:LONGEST]
