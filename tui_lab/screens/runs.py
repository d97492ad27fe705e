"""The Runs screen: every run of the lab, sorted and filtered; any of them on one chart.

The files are the truth: runs of this app, of another process and finished ones are read alike,
and only what changed is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content

from engine.errors import CheckpointError, EngineError
from engine.status import ACTIVE
from engine.text import visible
from tui_lab.format import size, thousands
from tui_lab.keys import bindings
from tui_lab.screens import runs_charts, runs_rows
from tui_lab.screens.dialogs import Dialog
from tui_lab.screens.looking import LookingScreen, refuse_ended
from tui_lab.widgets.filter_line import FilterLine
from tui_lab.widgets.overlay import Overlay
from tui_lab.widgets.pane import Pane, title
from tui_lab.widgets.table import Table

if TYPE_CHECKING:
    from engine.runs import RunSummary
    from tui_lab.catalogue import Catalogue
    from tui_lab.comparison import Curve

LETTERS = "ABCDEFGH"
KEPT = 8
"""Curves that stay in memory after the cursor has left their runs; a long run takes some."""
AXES = ("steps", "tokens", "time")
QUANTITIES = ("loss", "validation", "learning rate", "gradient norm")

EMPTY = (
    title("No runs yet"),
    (),
    (("A run is a training with its metrics and checkpoints.", ""),),
    (("Press ", "muted"), ("6", "strong"), (" to set one up, or in a shell: ", "muted"),
     ("tui-lab train --config micro", "strong")),
)  # fmt: skip


class RunsScreen(LookingScreen):
    NAME = "runs"
    CSS_PATH = "runs.tcss"
    BINDINGS = bindings(NAME)
    AUTO_FOCUS = "#runs"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (150, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[RunSummary] = []
        self.marks: dict[str, str] = {}  # run: letter
        self.words: tuple[str, ...] = ()
        self.sort, self.down = "created", True
        self.quantity, self.axis = QUANTITIES[0], AXES[0]
        self._catalogue: Catalogue | None = None
        self._curves: dict[str, Curve] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._wanted: list[tuple[str, Any]] = []  # names and folders of the runs on the chart
        self._known = False  # the first look has been taken
        self._grown = False  # a curve on the chart has new points

    def compose_body(self) -> ComposeResult:
        with Vertical(id="page"):
            yield FilterLine(id="head")
            yield Pane(id="empty")
            yield Table(runs_rows.COLUMNS, id="runs")
            with Horizontal(id="below"):
                yield Overlay(id="overlay", unicode=self.lab_app.unicode)
                yield Pane(id="details")

    def on_mount(self) -> None:
        memory = self.lab_app.settings.of(self.NAME)
        if memory.get("sort") in runs_rows.SORTS:
            self.sort, self.down = memory["sort"], memory.get("down") is not False
        self.query_one("#empty", Pane).show(EMPTY)
        self.look()

    @property
    def table(self) -> Table:
        return self.query_one("#runs", Table)

    @property
    def selected(self) -> RunSummary | None:
        """The run under the cursor."""
        return next((run for run in self.runs if run.name == self.table.key), None)

    @property
    def chosen(self) -> list[tuple[str, RunSummary]]:
        """The runs on the chart: the marked ones, or the one under the cursor."""
        by_name = {run.name: run for run in self.runs}
        marked = [(letter, by_name[n]) for n, letter in self.marks.items() if n in by_name]
        one = self.selected
        return sorted(marked, key=lambda pair: pair[0]) or ([("", one)] if one else [])

    # Looking at the files.

    def read(self, stopped: Callable[[], bool]) -> list[RunSummary]:
        """In a thread: the runs, and the new points of those on the chart."""
        from tui_lab.catalogue import Catalogue
        from tui_lab.comparison import Curve, read_values

        self._catalogue = self._catalogue or Catalogue(self.lab_app.lab)
        runs = self._catalogue.runs()
        for name, path in list(self._wanted):
            if stopped():
                break
            curve = self._curves.get(name)
            if curve is None or curve.path != path:
                curve = self._curves[name] = Curve(path)
                self._values[name] = read_values(path / "config.toml")
            self._grown |= curve.poll()
        wanted = {name for name, _ in self._wanted}
        for name in [name for name in self._curves if name not in wanted][:-KEPT]:
            del self._curves[name]
        return runs

    def take(self, found: list[RunSummary]) -> None:
        there = {run.name for run in found}
        self.marks = {name: letter for name, letter in self.marks.items() if name in there}
        first, self._known = not self._known, True
        changed, self.runs = found != self.runs, found
        self.set_class(not found, "-empty")
        self.show_rows()
        if first or changed or self._grown:
            self._grown = False
            self.show_chosen()

    # Showing.

    def show_rows(self) -> None:
        shown = [run for run in self.runs if runs_rows.matches(run, self.words)]
        shown = runs_rows.ordered(shown, self.sort, self.down)
        now = self.lab_app.clock()
        rows = [runs_rows.run_row(run, self.marks.get(run.name, ""), now) for run in shown]
        self.table.set_rows(rows, (self.sort, self.down))
        self._fit_table(len(rows))
        text = runs_rows.heading(len(rows), len(self.runs), self.marks) if self._known else ""
        self.query_one(FilterLine).head(Content(text))

    def _fit_table(self, rows: int) -> None:
        """The table takes what it needs, up to two fifths of the screen; the chart has the rest."""
        height = max(3, min(rows + 1, self.size.height * 2 // 5))
        if self.table.styles.height is None or self.table.styles.height.value != height:
            self.table.styles.height = height

    def show_chosen(self) -> None:
        """Draw the chosen runs; those whose files were not read yet come with the next look."""
        chosen = self.chosen
        wanted = [(run.name, run.path) for _, run in chosen]
        if wanted != self._wanted:
            self._wanted = wanted
            if any(name not in self._curves for name, _ in wanted):
                self.look_soon()
                self.look()
        chart = self.query_one(Overlay)
        point = "◆" if self.lab_app.unicode else "o"
        chart.show(runs_charts.overlay(chosen, self._curves, self.quantity, self.axis, point))
        pane = self.query_one("#details", Pane)
        now = self.lab_app.clock()
        pane.show(runs_charts.details(chosen, self._values, now, max(30, pane.size.width)))

    def on_resize(self) -> None:
        if self._known:
            self._fit_table(len(self.table.rows))
            self.call_after_refresh(self.show_chosen)

    @on(Table.Moved)
    def _moved(self) -> None:
        if not self.marks:
            self.show_chosen()

    @on(Table.Activated)
    def _activated(self) -> None:
        self.action_open()

    @on(Table.HeaderClicked)
    def _header(self, event: Table.HeaderClicked) -> None:
        if event.key in runs_rows.SORTS:
            down = not self.down if event.key == self.sort else runs_rows.SORTS[event.key][1]
            self.sort_by(event.key, down)

    @on(FilterLine.Changed)
    def _filtered(self, event: FilterLine.Changed) -> None:
        self.words = event.words
        self.show_rows()

    @on(FilterLine.Left)
    def _left(self) -> None:
        self.table.focus()

    def sort_by(self, column: str, down: bool) -> None:
        self.sort, self.down = column, down
        settings = self.lab_app.settings
        settings.of(self.NAME).update(sort=column, down=down)
        settings.save()
        self.show_rows()

    # Keys.

    def action_sort(self) -> None:
        names = list(runs_rows.SORTS)
        column = names[(names.index(self.sort) + 1) % len(names)]
        self.sort_by(column, runs_rows.SORTS[column][1])

    def action_reverse(self) -> None:
        self.sort_by(self.sort, not self.down)

    def action_filter(self) -> None:
        self.query_one(FilterLine).open()

    def action_clear(self) -> None:
        self.query_one(FilterLine).clear()

    def action_mark(self) -> None:
        run = self.selected
        if run is None:
            return
        if run.name in self.marks:
            del self.marks[run.name]
        else:
            free = [letter for letter in LETTERS if letter not in self.marks.values()]
            if not free:
                self.lab_app.notify_safe(f"{len(LETTERS)} runs are marked; u takes the marks away")
                return
            self.marks[run.name] = free[0]
        self.show_rows()
        self.show_chosen()
        self.table.action_move(1)

    def action_unmark(self) -> None:
        self.marks.clear()
        self.show_rows()
        self.show_chosen()

    def action_curve(self) -> None:
        self.quantity = QUANTITIES[(QUANTITIES.index(self.quantity) + 1) % len(QUANTITIES)]
        self.show_chosen()

    def action_axis(self) -> None:
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        self.show_chosen()

    def action_details(self) -> None:
        self.toggle_class("-details")
        self.call_after_refresh(self.show_chosen)

    def action_open(self) -> None:
        run = self.selected
        if run is not None:
            app = self.lab_app
            app.go("checkpoints")
            screen: Any = app.screen_stack[0]
            app.call_after_refresh(screen.show_run, run.name)

    def action_talk(self) -> None:
        run = self.selected
        if run is None:
            return
        if not run.n_checkpoints:
            self.lab_app.show_error(
                CheckpointError(f"run '{run.name}' has no checkpoint", "it was not saved (yet)")
            )
            return
        self.lab_app.open_console(run.name)

    def action_attach(self) -> None:
        """Show the run on the Train screen: the one of this app as it is, others by their files."""
        run, app = self.selected, self.lab_app
        if run is None:
            return
        if app.run_state is not None and app.run_state.path == str(run.path):
            app.go("train")
            return
        try:
            app.attach(run.path)
        except EngineError as error:
            app.show_error(error)

    def action_resume(self) -> None:
        if self.selected is not None:
            self.run_worker(partial(self._resume, self.selected), exclusive=True, group="ask")

    async def _resume(self, run: RunSummary) -> None:
        app = self.lab_app
        try:
            self._refuse(run, "resumed")
            from engine.checkpoints import find_checkpoint

            info = await asyncio.to_thread(find_checkpoint, app.lab, run.name)
            refuse_ended(run.name, info.step, run.max_steps)
            body = (
                f"From its newest sound checkpoint, step {thousands(info.step)}, "
                f"towards step {thousands(run.max_steps)}."
            )
            if await app.ask(Dialog(f"Go on training '{run.name}'?", body, yes="Resume")):
                app.resume_run(run.name)
        except EngineError as error:
            app.show_error(error)

    def _refuse(self, run: RunSummary, done: str) -> None:
        if not run.own:
            raise CheckpointError(
                f"'{run.name}' ships with tui-lab and cannot be {done}", "runs of your own can be"
            )
        if run.status in ACTIVE:
            raise CheckpointError(
                f"'{run.name}' is {run.status} (process {run.pid} on {run.host})",
                f"attach to it (a) and stop it; then it can be {done}",
            )

    def action_delete(self) -> None:
        if self.selected is not None:
            self.run_worker(partial(self._delete, self.selected), exclusive=True, group="ask")

    async def _delete(self, run: RunSummary) -> None:
        from engine.checkpoints import delete_run

        app = self.lab_app
        try:
            self._refuse(run, "deleted")
            number = run.n_checkpoints
            body = (
                f"{number} checkpoint{'s' * (number != 1)}, the metrics, samples and log go: "
                f"{size(run.bytes)} in\n{run.path}"
            )
            sure = Dialog(f"Delete run '{run.name}'?", body, yes="Delete …", danger=True)
            if not await app.ask(sure):
                return
            last = f"Really delete '{run.name}' for good?"
            if await app.ask(Dialog(last, "There is no way back.", yes="Delete", danger=True)):
                await asyncio.to_thread(delete_run, run.path)
                app.notify_safe(f"deleted {visible(run.name)}, {size(run.bytes)} freed")
                self.look()
        except EngineError as error:
            app.show_error(error)
