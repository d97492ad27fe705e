"""What the console can talk to, and the dialog in which one is chosen.

Reads run folders only; no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import EngineError
from engine.lab import Lab
from engine.text import visible
from tui_lab.format import ago, number, thousands
from tui_lab.screens.base import Kept
from tui_lab.widgets.choice_list import ChoiceList
from tui_lab.widgets.text_field import TextField


@dataclass(frozen=True)
class Source:
    """A checkpoint by its path, or (`reference` None) the weights in training."""

    reference: str | None
    label: str
    detail: str = ""


LIVE = Source(None, "live weights", "of the run on the Train screen")


def describe(info) -> Source:
    """A checkpoint (`engine.checkpoints.CheckpointInfo`) as a source."""
    parts = [f"val {number(info.val_loss)}"] if info.val_loss is not None else []
    if info.best:
        parts.append("best")
    age = ago(max(0.0, time.time() - info.time))
    parts.append(age if age == "now" else f"{age} ago")
    return Source(
        str(info.path), f"{info.run} @ {thousands(info.step)}", " · ".join(part for part in parts)
    )


def find_source(lab: Lab, reference: str, problems: list[str]) -> Source:
    """The source that a reference names; broken checkpoints that were passed over are named in
    `problems`. Raises CheckpointError."""
    from engine.checkpoints import find_checkpoint

    return describe(find_checkpoint(lab, reference, problems))


def broken_beside(source: Source) -> list[str]:
    """What is wrong with checkpoints of the same run that are listed nowhere as sources."""
    from engine.checkpoints import list_checkpoints

    if source.reference is None:
        return []
    return [
        f"'{info.run}/{info.path.name}' is not complete"
        for info in list_checkpoints(Path(source.reference).parent)
        if not info.complete
    ]


def list_sources(lab: Lab) -> list[Source]:
    """Every complete checkpoint: the newest run first, the newest checkpoint of a run first."""
    from engine.checkpoints import list_checkpoints
    from engine.runs import list_runs

    sources = []
    for run in sorted(list_runs(lab), key=lambda run: (run.own, run.created), reverse=True):
        try:
            infos = list_checkpoints(run.path)
        except EngineError:
            continue  # the checkpoints screen tells what is wrong with it
        sources += [describe(info) for info in reversed(infos) if info.complete]
    return sources


class SourceDialog(Kept[Source | None]):
    """A list to filter by typing; enter takes the marked one, escape none."""

    CSS_PATH = "console.tcss"
    BINDINGS = [
        Binding("escape", "leave", "Cancel"),
        Binding("up", "mark(-1)", show=False),
        Binding("down", "mark(1)", show=False),
        Binding("pageup", "mark(-10)", show=False),
        Binding("pagedown", "mark(10)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._title = Static(id="sources-title", markup=False)
        self._note = Static("looking …", id="sources-note", markup=False)
        self._listing: Callable[[], list[Source]] = list
        self._current: Source | None = None
        self._sources: list[Source] = []
        self._shown: list[Source] = []
        self._listed: list[Source] = []  # what the list on the screen is made of

    def show(
        self,
        listing: Callable[[], list[Source]],
        current: Source | None,
        title: str = "Talk to",
    ) -> Self:
        """What `listing` finds, the `current` one marked. It is asked in a thread; until it has
        answered, nothing can be taken."""
        self._listing, self._current = listing, current
        self._sources, self._shown = [], []
        _tell(self._title, title)
        if self.is_attached:
            with self.prevent(Input.Changed):
                self.query_one(TextField).value = ""
            self._look()
        return self

    def compose(self) -> ComposeResult:
        with Vertical(id="sources"):
            yield self._title
            yield TextField(placeholder="type to filter", id="sources-filter")
            yield ChoiceList(id="sources-list", markup=False)
            yield self._note

    def on_mount(self) -> None:
        self.query_one("#sources-list").can_focus = False
        self._look()

    def _look(self) -> None:
        self.run_worker(partial(self._read, self._listing), thread=True)

    def _read(self, listing: Callable[[], list[Source]]) -> None:
        try:
            sources = listing()
        except EngineError as error:
            self.app.call_from_thread(self._fail, listing, error)
            return
        self.app.call_from_thread(self._fill, listing, sources)

    def _fail(self, listing: Callable[[], list[Source]], error: EngineError) -> None:
        if self.is_attached and listing is self._listing:
            self._show("")
            _tell(self._note, visible(str(error), lines=False))

    def _fill(self, listing: Callable[[], list[Source]], sources: list[Source]) -> None:
        if self.is_attached and listing is self._listing:
            self._sources = sources
            self._show(self.query_one(TextField).value)

    def _show(self, wanted: str) -> None:
        words = wanted.lower().split()
        self._shown = [
            source
            for source in self._sources
            if all(word in f"{source.label} {source.detail}".lower() for word in words)
        ]
        options = self.query_one(OptionList)
        if self._listed != self._shown:
            self._listed = self._shown
            width = max((len(source.label) for source in self._shown), default=0)
            options.clear_options()
            options.add_options(
                Option(
                    Content.assemble(
                        visible(f"{source.label:<{min(width, 40)}}", lines=False),
                        (f"  {visible(source.detail, lines=False)}", "dim"),
                    )
                )
                for source in self._shown
            )
        if self._shown:
            known = self._current in self._shown
            options.highlighted = self._shown.index(self._current) if known else 0
        note = "enter talk · esc leave" if self._sources else "no checkpoints yet: train a run"
        _tell(self._note, note if self._shown else f"none · {note}")

    @on(Input.Changed)
    def _filtered(self, event: Input.Changed) -> None:
        self._show(event.value)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._take(self.query_one(OptionList).highlighted)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._take(event.option_index)

    def _take(self, index: int | None) -> None:
        if index is not None and index < len(self._shown):
            self.dismiss(self._shown[index])

    def action_mark(self, by: int) -> None:
        if self._shown:  # else the list may not be there yet: a key can be quicker than its mount
            options = self.query_one(OptionList)
            place = (options.highlighted or 0) + by
            options.highlighted = min(max(place, 0), len(self._shown) - 1)

    def action_leave(self) -> None:
        self.dismiss(None)


def _tell(line: Static, text: str) -> None:
    """Have a line say this; Textual lays the whole dialog out for each update."""
    if line.content != text:
        line.update(text)
