"""Fields of a `config.json` that anybody may have written, with their types checked.

Knows no class and no network. Every refusal is an InputError that names the field and its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import InputError


class Fields:
    """The fields of one object. Null counts as absent, as with the classes that read it."""

    def __init__(self, values: Mapping[str, Any], within: str = "") -> None:
        """`within`: the field that the object itself stands in, for messages."""
        self.values = values
        self._within = f"{within}." if within else ""

    def whole(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.refusal(name, "a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.refusal(name, "a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.refusal(name, "true or false")
        return value

    def demand(self, name: str, *accepted: Any) -> None:
        """Refuse a value that would change the arithmetic in a way that the network does not have;
        absent is accepted."""
        value = self.values.get(name)
        if value is not None and value not in accepted:
            raise self.refusal(name, " or ".join(str(one).lower() for one in accepted))

    def refusal(self, name: str, accepted: str) -> InputError:
        value = repr(self.values.get(name))
        shown = value if len(value) <= 60 else value[:60] + "…"
        return InputError(
            f"config.json: {self._within}{name} = {shown}: not supported",
            f"this network has {accepted}",
        )

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise InputError(
                f"config.json: {self._within}{name} is missing", "the folder is not whole"
            )
        return value
