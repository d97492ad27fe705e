"""The Checkpoints screen: what is saved, what is in it, whether it is sound, what to do with it.

A checkpoint is described from its headers; its bytes are read only when asked (statistics,
verification), in a thread that can be told to stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content

from engine.errors import CheckpointError, EngineError
from engine.text import visible
from tui_lab.format import percent, size, thousands
from tui_lab.keys import bindings
from tui_lab.screens import checkpoints_rows as rows
from tui_lab.screens.dialogs import Dialog
from tui_lab.screens.looking import LookingScreen, refuse_ended
from tui_lab.widgets.filter_line import FilterLine
from tui_lab.widgets.pane import Line, Pane, title
from tui_lab.widgets.table import Table
from tui_lab.widgets.views import Views

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo, Inspection, TensorStatistics
    from tui_lab.app import LabApp
    from tui_lab.catalogue import Catalogue

EMPTY: tuple[Line, ...] = (
    title("No checkpoints yet"),
    (),
    (("A run saves one while it trains, unless it was told not to.", ""),),
    (("Press ", "muted"), ("6", "strong"), (" to set up a run, ", "muted"), ("a", "strong"),
     (" to see the checkpoints of all runs.", "muted")),
)  # fmt: skip


class CheckpointsScreen(LookingScreen):
    NAME = "checkpoints"
    CSS_PATH = "checkpoints.tcss"
    BINDINGS = bindings(NAME)
    AUTO_FOCUS = "#checkpoints"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.run: str | None = None  # the run whose checkpoints are shown; None: all runs
        self.words: tuple[str, ...] = ()
        self.found: list[tuple[CheckpointInfo, bool]] = []
        self.checked: dict[Path, list[str]] = {}  # by path: what verification said
        self.measured: dict[Path, list[TensorStatistics]] = {}
        self._inspections: dict[Path, Inspection | EngineError] = {}
        self._progress: dict[Path, float] = {}  # statistics under way: share that is done
        self._verifying: set[Path] = set()
        self._stop = threading.Event()
        self._catalogue: Catalogue | None = None
        self._known = False  # the first look has been taken

    def compose_body(self) -> ComposeResult:
        with Vertical(id="page"):
            yield FilterLine(id="head")
            yield Pane(id="empty")
            with Container(id="main"):
                yield Table(rows.COLUMNS, id="checkpoints")
                with Vertical(id="detail"):
                    yield Views(rows.VIEWS, id="views")
                    yield Pane(id="pane")

    def on_mount(self) -> None:
        self.query_one("#empty", Pane).show(EMPTY)
        self.look()

    def on_unmount(self) -> None:
        self._stop.set()

    @property
    def table(self) -> Table:
        return self.query_one("#checkpoints", Table)

    @property
    def gone(self) -> bool:
        """Whether the app is being left: what was read meanwhile has nowhere to be shown."""
        return not self.query("#checkpoints")

    @property
    def views(self) -> Views:
        return self.query_one(Views)

    @property
    def selected(self) -> tuple[CheckpointInfo, bool] | None:
        """The checkpoint under the cursor, and whether it is the lab's own."""
        key = self.table.key
        return next(((info, own) for info, own in self.found if str(info.path) == key), None)

    def show_run(self, name: str | None) -> None:
        """Show the checkpoints of one run, or of all."""
        self.run = name
        self.show_rows()

    # Looking at the files.

    def tick(self, app: LabApp) -> None:
        super().tick(app)
        if self._progress:
            self.show_detail()

    def read(self, stopped: Callable[[], bool]) -> list[tuple[CheckpointInfo, bool]]:
        from tui_lab.catalogue import Catalogue

        self._catalogue = self._catalogue or Catalogue(self.lab_app.lab)
        return self._catalogue.checkpoints()

    def take(self, found: list[tuple[CheckpointInfo, bool]]) -> None:
        self._known = True
        if found != self.found:
            before = dict(self.found)
            for info, _ in found:  # one that changed is another one: nothing known of it holds
                if info not in before:
                    self._forget(info.path)
            self.found = found
        self.show_rows()

    def _forget(self, path: Path) -> None:
        for known in (self.checked, self.measured, self._inspections):
            known.pop(path, None)

    # Showing.

    def show_rows(self) -> None:
        if not self._known or self.gone:
            return
        listed = [pair for pair in self.found if self.run is None or pair[0].run == self.run]
        shown = [pair for pair in listed if rows.matches(pair[0], self.words)]
        shown.sort(key=lambda pair: (-pair[0].time, pair[0].run, -pair[0].step))
        now = self.lab_app.clock()
        self.table.set_rows(
            [rows.checkpoint_row(info, own, self.checked, now) for info, own in shown]
        )
        self.set_class(not listed, "-empty")
        text = rows.heading(len(shown), len(listed), self.run)
        self.query_one(FilterLine).head(Content(visible(text, lines=False)))
        self._fit()

    def show_detail(self, *, keep_place: bool = True) -> None:
        """The view of the checkpoint under the cursor; its headers are read if they were not."""
        if self.gone:
            return
        chosen = self.selected
        pane = self.query_one("#pane", Pane)
        if chosen is None:
            pane.show(())
            return
        info, own = chosen
        inspection = self._inspections.get(info.path)
        if inspection is None:
            self.run_worker(partial(self._inspect, info.path), exclusive=True, group="inspect")
            return
        if isinstance(inspection, EngineError):
            lines: list[Line] = [((inspection.title, "bad"),)]
            lines += [((inspection.hint, "muted"),)] * bool(inspection.hint)
        else:
            lines = self._lines(info, own, inspection, max(30, pane.size.width - 1))
        pane.show(lines, keep_place=keep_place)

    def _lines(
        self, info: CheckpointInfo, own: bool, inspection: Inspection, width: int
    ) -> list[Line]:
        match self.views.current:
            case "parameters":
                return rows.parameters(inspection, width)
            case "tensors":
                return rows.tensors(inspection)
            case "statistics":
                return self._statistics(info, width)
            case "configuration":
                return rows.configuration(inspection)
        lines = rows.overview(inspection, own, self.checked, self.lab_app.clock())
        if info.path in self._verifying:
            lines.insert(0, (("checking every byte …", "warn"),))
        return lines

    def _statistics(self, info: CheckpointInfo, width: int) -> list[Line]:
        if info.path in self._progress:
            done = percent(self._progress[info.path])
            return [((f"reading the tensors … {done}", "warn"), ("   esc stops", "muted"))]
        if info.path in self.measured:
            return rows.statistics(self.measured[info.path], width)
        said = f" reads {size(info.bytes)} and shows norm, spread and histogram of each tensor."
        return [(("s", "strong"), (said, "muted"))]

    async def _inspect(self, path: Path) -> None:
        from engine.checkpoints import inspect

        await asyncio.sleep(0.03)  # the cursor may only be passing by
        try:
            self._inspections[path] = await asyncio.to_thread(inspect, path)
        except EngineError as error:
            self._inspections[path] = error
        if len(self._inspections) > 50:
            self._inspections.pop(next(iter(self._inspections)))
        self.show_detail(keep_place=False)

    def on_resize(self) -> None:
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """Above the detail the table takes what it needs; beside it, all there is."""
        height = max(3, min(len(self.table.rows) + 1, self.size.height * 2 // 5))
        self.table.styles.height = "1fr" if self.has_class("-wide") else height
        self.show_detail()

    @on(Table.Moved)
    def _moved(self) -> None:
        self.show_detail(keep_place=False)

    @on(Views.Changed)
    def _view_changed(self) -> None:
        self.show_detail(keep_place=False)

    @on(Table.Activated)
    def _activated(self) -> None:
        self.action_talk()

    @on(FilterLine.Changed)
    def _filtered(self, event: FilterLine.Changed) -> None:
        self.words = event.words
        self.show_rows()

    @on(FilterLine.Left)
    def _left(self) -> None:
        self.table.focus()

    # Keys.

    def action_view(self, by: int) -> None:
        self.views.turn(by)

    def action_filter(self) -> None:
        self.query_one(FilterLine).open()

    def action_clear(self) -> None:
        """Stop the reading that is under way; else take the filter away."""
        if self._progress:
            self._stop.set()
        else:
            self.query_one(FilterLine).clear()

    def action_all(self) -> None:
        if self.run is not None:
            self.show_run(None)
        elif self.selected is not None:
            self.show_run(self.selected[0].run)

    def action_copy(self) -> None:
        if self.selected is not None:
            path = str(self.selected[0].path)
            self.app.copy_to_clipboard(visible(path, lines=False))
            self.lab_app.notify_safe(path, title="copied")

    def action_talk(self) -> None:
        if self.selected is not None:
            self.lab_app.open_console(_reference(self.selected[0]))

    def action_verify(self) -> None:
        if self.selected is not None and self.selected[0].path not in self._verifying:
            self.run_worker(partial(self._verify, self.selected[0].path), group="verify")

    async def _verify(self, path: Path) -> None:
        from engine.checkpoints import verify

        self._verifying.add(path)
        self.views.current = "overview"
        self.show_detail()
        try:
            self.checked[path] = await asyncio.to_thread(verify, path)
        except EngineError as error:
            self.checked[path] = [error.title]
        finally:
            self._verifying.discard(path)
            self.show_rows()

    def action_measure(self) -> None:
        self.views.current = "statistics"
        if self.selected is None or self._progress:
            return
        path = self.selected[0].path
        if path not in self.measured:
            self._stop.clear()
            self._progress[path] = 0.0
            self.run_worker(partial(self._measure, path), group="measure")

    async def _measure(self, path: Path) -> None:
        from engine.checkpoints import tensor_statistics

        def progress(done: int, total: int) -> None:
            self._progress[path] = done / max(1, total)

        def work() -> list[TensorStatistics]:
            return tensor_statistics(path, None, progress, self._stop.is_set)

        try:
            found = await asyncio.to_thread(work)
            if not self._stop.is_set():
                self.measured[path] = found
        except EngineError as error:
            self.lab_app.show_error(error)
        finally:
            self._progress.pop(path, None)
            self.show_detail()

    def action_resume(self) -> None:
        if self.selected is not None:
            self.run_worker(partial(self._resume, *self.selected), exclusive=True, group="ask")

    async def _resume(self, info: CheckpointInfo, own: bool) -> None:
        from engine.checkpoints import inspect
        from engine.runs import summarise

        app = self.lab_app
        try:
            self._refuse(info, own, "resumed")
            inspection = await asyncio.to_thread(inspect, info.path)
            if not inspection.training_tensors:
                raise CheckpointError(
                    f"{_reference(info)} has no training state", "it can be talked to, not resumed"
                )
            run = await asyncio.to_thread(summarise, info.path.parent)
            refuse_ended(info.run, info.step, run.max_steps)
            body = f"Training goes on from step {thousands(info.step)}"
            body += f" towards step {thousands(run.max_steps)}." if run.max_steps else "."
            if run.step > info.step:
                body += (
                    f" The run has been at step {thousands(run.step)}: "
                    "what came after this checkpoint leaves its curves."
                )
            asked = Dialog(f"Go on training '{info.run}' from here?", body, yes="Resume")
            if await app.ask(asked):
                app.resume_run(_reference(info))
        except EngineError as error:
            app.show_error(error)

    def _refuse(self, info: CheckpointInfo, own: bool, done: str) -> None:
        if not own:
            raise CheckpointError(
                f"'{info.run}' ships with tui-lab and cannot be {done}", "runs of your own can be"
            )

    def action_delete(self) -> None:
        if self.selected is not None:
            self.run_worker(partial(self._delete, *self.selected), exclusive=True, group="ask")

    async def _delete(self, info: CheckpointInfo, own: bool) -> None:
        from engine.checkpoints import delete

        app = self.lab_app
        try:
            self._refuse(info, own, "deleted")
            alone = sum(other.run == info.run for other, _ in self.found) == 1
            body = f"{size(info.bytes)} in\n{info.path}"
            if info.best:
                body += "\nIt is the run's best."
            if alone:
                body += "\nIt is the run's only one: the run cannot be resumed without it."
            named = f"step {thousands(info.step)} of '{info.run}'"
            sure = Dialog(f"Delete {named}?", body, yes="Delete …", danger=True)
            if not await app.ask(sure):
                return
            last = f"Really delete {named}?"
            if await app.ask(Dialog(last, "There is no way back.", yes="Delete", danger=True)):
                await asyncio.to_thread(delete, info.path)
                app.notify_safe(f"deleted {named}, {size(info.bytes)} freed")
                self.look()
        except EngineError as error:
            app.show_error(error)


def _reference(info: CheckpointInfo) -> str:
    """How the rest of the program names this checkpoint."""
    return f"{info.run}/{info.path.name}"
