"""The panels of a run on the Train screen: mounted with the first run, brought up to date by it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.strip import Strip

from engine.text import visible
from tui_lab import format as fmt
from tui_lab.launch import log_path
from tui_lab.screens import train_view
from tui_lab.state import RunState
from tui_lab.widgets.chart import Chart
from tui_lab.widgets.lines import LineView
from tui_lab.widgets.readout import EventLog, Readout, TextPanel

if TYPE_CHECKING:
    from tui_lab.app import LabApp
    from tui_lab.widgets.plot import CalmRange

CHART_SECONDS = {"loss": 0.5, "rate": 1.0, "norm": 1.0}
"""Between two pictures of a chart: numbers are read, but a curve is not watched by the dot."""
SLOW_LINK = 8
"""Times as long on a slow link."""


class Heading(LineView):
    """The run's name and progress."""

    DEFAULT_CSS = "Heading { height: 1; width: 1fr; }"
    run: RunState | None = None

    def build(self, width: int, height: int) -> Iterable[Strip]:
        if self.run is not None:
            pieces = train_view.heading(self.run, width, self.app.unicode)  # type: ignore
            yield self.strip(*((visible(text, lines=False), part) for text, part in pieces))


class LivePanels(Vertical):
    """Everything between the bars while there is a run."""

    def __init__(self, app: LabApp) -> None:
        super().__init__(id="live")
        self.lab_app = app
        self._shown: dict[str, tuple[float, ...]] = {}  # of each chart: see `_is_due`
        self._heights: dict[str, CalmRange] = {}
        self.waiting = False

    def compose(self) -> ComposeResult:
        unicode = self.lab_app.unicode
        yield Heading(id="heading")
        with Horizontal(id="upper"):
            yield Chart(id="loss", unicode=unicode)
            with Vertical(id="side"):
                yield Readout(id="numbers", unicode=unicode)
                yield EventLog(id="log", unicode=unicode)
        with Horizontal(id="lower"):
            yield TextPanel(id="summary")
            yield Chart(id="rate", unicode=unicode)
            yield Chart(id="norm", unicode=unicode)
            yield TextPanel(id="sample")

    def show(self, run: RunState, *, whole: bool = False) -> None:
        """Bring every panel up to date; `whole`: also the charts that have no new column to show,
        and those that have just got their size."""
        app = self.lab_app
        head = self.query_one(Heading)
        head.run = run
        head.redraw()
        side = self.query_one("#side")
        room = side.size.height - (3 if side.size.height < 30 else 6)  # the rest is the log's
        rows = train_view.numbers(
            run, max(room, 6), side.size.width, app.unicode, sparks=not app.slow_link
        )
        self.query_one(Readout).show(rows)
        self.query_one(EventLog).show(run.lines)
        self.show_charts(run, whole=whole)
        self._show_sample(run)
        if not run.live:
            self._show_summary(run)

    def show_charts(self, run: RunState, *, whole: bool = False) -> None:
        """Draw the charts that have something to show and were not drawn just now; `waiting` then
        tells of those that were."""
        self.waiting = False
        app, unicode = self.lab_app, self.lab_app.unicode
        if self._is_due("loss", run, whole):
            heights = self._heights_of("loss", whole)
            plot = train_view.loss_plot(run, app.settings, unicode, heights)
            self._chart("loss").show(train_view.coarse(plot) if app.slow_link else plot)
        if run.live and self._is_due("rate", run, whole):
            self._chart("rate").show(train_view.rate_plot(run, unicode))
        if run.live and self._is_due("norm", run, whole):
            heights = self._heights_of("norm", whole)
            self._chart("norm").show(train_view.norm_plot(run, unicode, heights))

    def _chart(self, name: str) -> Chart:
        return self.query_one(f"#{name}", Chart)

    def _heights_of(self, name: str, anew: bool) -> CalmRange:
        # numpy comes with the first run: the app's first paint must not wait for it.
        from tui_lab.widgets.plot import CalmRange

        if anew or name not in self._heights:
            self._heights[name] = CalmRange()
        return self._heights[name]

    def _is_due(self, name: str, run: RunState, whole: bool) -> bool:
        """Whether the run has something to show on a chart that is not there: another column of
        dots, an evaluation, a mark. Looked at as often as CHART_SECONDS says."""
        width = self._chart(name).size.width
        if not width:
            return False
        slow = self.lab_app.slow_link
        at, *shown = self._shown.get(name, (0.0, slow))
        clock = time.monotonic()
        steady = run.status == "training" and not whole and shown[0] == slow
        if steady and clock - at < CHART_SECONDS[name] * (SLOW_LINK if slow else 1):
            self.waiting = True
            return False
        zoom = self.lab_app.settings.zoom if name == "loss" else train_view.ZOOMS[0]
        left, right = (0.0, run.max_steps) if name == "rate" else train_view.x_range(run, zoom)
        column = int((run.step - left) / ((right - left) or 1) * width * 2)
        now = [slow, id(run), left, right, column, len(run.validation), len(run.marks)]
        if steady and now == shown:
            return False
        self._shown[name] = (clock, *now)
        return True

    def _show_summary(self, run: RunState) -> None:
        word = "failed" if run.failed else run.finished.reason if run.finished else "ended"
        log = f"{run.path}/log.txt" if run.path else str(log_path())
        title = (word, "error" if run.failed else "good")
        self.query_one("#summary", TextPanel).show((title,), *train_view.summary(run, log))

    def _show_sample(self, run: RunState) -> None:
        panel, sample = self.query_one("#sample", TextPanel), run.sample
        if sample is None:
            hint = "none yet: g draws one now" if run.live else "none was drawn"
            panel.show((("sample", "bright"),), (hint, "muted"))
            return
        heading = (("sample", "bright"), (f" · step {fmt.thousands(sample.step)}", "muted"))
        panel.show(heading, (sample.prompt, "muted"), (sample.text, "text"))
