"""The console's texts side by side: one column for each model that is talked to, or one alone."""

from __future__ import annotations

from collections.abc import Iterator

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.widgets import Static

from engine.text import visible
from tui_lab.generations import Generation
from tui_lab.screens.console_transcript import Transcript
from tui_lab.widgets.colouring import Measure


class Column(Vertical):
    """Who speaks, how fast, and what has come from there. `number`: 0 or 1."""

    def __init__(self, number: int) -> None:
        super().__init__(id=f"column-{number}")
        self.number = number

    def compose(self) -> ComposeResult:
        yield Static("", classes="source", markup=False)
        yield Static("", classes="figures", markup=False)
        yield Transcript(id=f"transcript-{self.number}")

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    def show_source(self, text: str) -> None:
        self._set(".source", text)

    def show_figures(self, text: str) -> None:
        self._set(".figures", text)

    def _set(self, selector: str, text: str) -> None:
        widget, text = self.query_one(selector, Static), visible(text, lines=False, most=1000)
        if widget.content != text:
            widget.update(text, layout=False)


class Columns(Container):
    """Both columns; `both`: whether the second is shown."""

    def __init__(self) -> None:
        super().__init__(id="columns")
        self.both = False
        self._active = 0

    def compose(self) -> ComposeResult:
        yield Column(0)
        yield Column(1)

    @property
    def all(self) -> list[Column]:
        return list(self.query(Column))

    @property
    def shown(self) -> list[Column]:
        return self.all if self.both else self.all[:1]

    @property
    def active(self) -> Column:
        """The column whose text has, or last had, the focus."""
        return self.all[self._active if self.both else 0]

    @on(events.DescendantFocus)
    def _focused(self, event: events.DescendantFocus) -> None:
        for column in self.all:
            if event.widget is column.transcript:
                self._active = column.number

    def of(self, generation: Generation) -> Column:
        return self.all[generation.column]

    def other(self, column: Column) -> Column:
        return self.all[1 - column.number]

    def generations(self) -> Iterator[Generation]:
        """Of both columns, the oldest first."""
        found = [one for column in self.all for one in column.transcript.generations]
        return iter(sorted(found, key=lambda one: one.number))

    def colour_by(self, measure: Measure) -> None:
        for column in self.all:
            column.transcript.measure = measure
