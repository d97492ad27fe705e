"""A compact list to choose from."""

from __future__ import annotations

from typing import Any

from textual.widgets import OptionList

from tui_lab.widgets.text_field import COMPACT


class ChoiceList(OptionList):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_class(COMPACT, update=False)
