"""The panels of a run on the Train screen: mounted with the first run, brought up to date by it."""

from __future__ import annotations

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

CALM_STEPS = 400
"""The slow panels follow in this many jumps over a run: nobody watches them step by step."""


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
        self._slow_at: tuple[int, int] = (-1, 0)  # the run and the step that the slow panels show

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
        """Bring every panel up to date; the slow ones only now and then unless `whole`."""
        app = self.lab_app
        head = self.query_one(Heading)
        head.run = run
        head.redraw()
        side = self.query_one("#side")
        room = side.size.height - (3 if side.size.height < 30 else 6)  # the rest is the log's
        rows = train_view.numbers(run, max(room, 6), side.size.width, app.unicode)
        self.query_one(Readout).show(rows)
        self.query_one(EventLog).show(run.lines)
        self.query_one("#loss", Chart).show(train_view.loss_plot(run, app.settings, app.unicode))
        self._show_sample(run)
        if not run.live:
            self._show_summary(run)
            return
        shown, step = self._slow_at
        if whole or shown != id(run) or run.step - step >= run.max_steps / CALM_STEPS:
            self._slow_at = (id(run), run.step)
            for name, make in (("#rate", train_view.rate_plot), ("#norm", train_view.norm_plot)):
                chart = self.query_one(name, Chart)
                if chart.size.width:
                    chart.show(make(run, app.unicode))

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
