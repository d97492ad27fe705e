"""The Train screen: the loss, the numbers, the plan, the newest sample, the log; and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from engine.control import EvalNow, Pause, Resume, Sample, SaveNow, SetLearningRate, Step
from engine.errors import EngineError, InputError
from engine.generation.params import SamplingParams
from engine.text import visible
from tui_lab import format as fmt
from tui_lab.keys import bindings
from tui_lab.screens import train_view
from tui_lab.screens.base import LabScreen
from tui_lab.settings import config_dir
from tui_lab.state import RunState
from tui_lab.widgets.chart import Chart
from tui_lab.widgets.lines import LineView
from tui_lab.widgets.readout import EventLog, Readout, TextPanel
from tui_lab.widgets.welcome import Welcome

if TYPE_CHECKING:
    from tui_lab.app import LabApp

PRESET = "micro"
LIVE_KEYS = frozenset({"pause", "step", "save", "evaluate", "sample", "rate", "stop"})
ENDED_KEYS = frozenset({"talk", "resume"})


class Heading(LineView):
    """The run's name and progress."""

    DEFAULT_CSS = "Heading { height: 1; width: 1fr; }"
    run: RunState | None = None

    def build(self, width: int, height: int):
        if self.run is not None:
            unicode = self.app.unicode
            pieces = train_view.heading(self.run, width, unicode)
            yield self.strip(*((visible(text, lines=False), part) for text, part in pieces))


class TrainScreen(LabScreen):
    NAME = "train"
    CSS_PATH = "train.tcss"
    BINDINGS = bindings(NAME)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[int, int] = (-1, -1)  # of the run's version, and which run
        self._slow_at = 0  # the step that the slow panels show

    def compose_body(self) -> ComposeResult:
        unicode = self.lab_app.unicode
        yield Welcome(unicode)
        with Vertical(id="live"):
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

    def on_mount(self) -> None:
        self._set_keys(None)

    def on_resize(self) -> None:
        self.call_after_refresh(self._again)

    def tick(self, app: LabApp) -> None:
        run = app.run_state
        if run is None or self._seen == (run.version, id(run)):
            return
        first = self._seen[1] != id(run)
        self._seen = (run.version, id(run))
        if first:
            self._slow_at = 0
            self.add_class("-running")
        if first or run.live == self.has_class("-ended"):
            self.call_after_refresh(self._again)  # the panels have their sizes only then
        self._set_keys(run)
        self.set_class(not run.live, "-ended")
        self._show(run)

    def _show(self, run: RunState, *, calm: bool = False) -> None:
        """Bring every panel up to date; the slow ones only now and then, or when all is calm."""
        app = self.lab_app
        head = self.query_one(Heading)
        head.run = run
        head.redraw()
        side, log = self.query_one("#side"), self.query_one(EventLog)
        least = 3 if side.size.height < 30 else 6  # lines kept for the log
        room, width = side.size.height - least, side.size.width - 2
        rows = train_view.numbers(run, max(room, 6), width, app.unicode)
        self.query_one(Readout).show(rows)
        log.show(run.lines)
        self.query_one("#loss", Chart).show(train_view.loss_plot(run, app.settings, app.unicode))
        if run.live and (calm or run.step - self._slow_at >= run.max_steps / 400):
            # A learning rate and a gradient norm are not watched step by step.
            self._slow_at = run.step
            for name, make in (("#rate", train_view.rate_plot), ("#norm", train_view.norm_plot)):
                chart = self.query_one(name, Chart)
                if chart.size.width:
                    chart.show(make(run, app.unicode))
        if not run.live:
            word = "failed" if run.failed else run.finished.reason if run.finished else "ended"
            title = (f"{word}", "error" if run.failed else "good")
            self.query_one("#summary", TextPanel).show(
                (title,), *train_view.summary(run, _log(run))
            )
        self._show_sample(run)

    def _show_sample(self, run: RunState) -> None:
        panel, sample = self.query_one("#sample", TextPanel), run.sample
        if sample is None:
            panel.show((("sample", "bright"),), ("none yet: g draws one now", "muted"))
            return
        heading = (("sample", "bright"), (f" · step {fmt.thousands(sample.step)}", "muted"))
        panel.show(heading, (sample.prompt, "muted"), (sample.text, "text"))

    def _set_keys(self, run: RunState | None) -> None:
        """The footer offers what can be done now."""
        if run is None:
            self.keybar.show(hidden=LIVE_KEYS | ENDED_KEYS)
        elif run.live:
            paused = run.status == "paused"
            self.keybar.show(hidden=ENDED_KEYS | {"start"}, pause="resume" if paused else "pause")
        else:
            self.keybar.show(hidden=LIVE_KEYS | {"start"})

    # Keys.

    def _live(self) -> RunState | None:
        """The run, if it can be told something; else a word on why not."""
        run = self.lab_app.run_state
        if run is not None and run.live and self.lab_app.trainer.active:
            return run
        self.lab_app.notify_safe("nothing is training", severity="warning")
        return None

    def action_toggle_pause(self) -> None:
        if run := self._live():
            trainer = self.lab_app.trainer
            resume = trainer.paused or run.status == "paused"  # the run also pauses by itself
            trainer.put(Resume() if resume else Pause())
            run.ask("" if resume else "pausing")

    def action_single_step(self) -> None:
        if self._live():
            self.lab_app.trainer.put(Step())

    def action_save(self) -> None:
        if run := self._live():
            if run.config and run.config.save.policy == "none":
                self.lab_app.notify_safe("save.policy is none: nothing is kept", severity="warning")
                return
            self.lab_app.trainer.put(SaveNow())
            run.ask("saving")

    def action_evaluate(self) -> None:
        if run := self._live():
            self.lab_app.trainer.put(EvalNow())
            run.ask("evaluating")

    def action_sample(self) -> None:
        if (run := self._live()) and run.config:
            told = run.config.sample
            params = SamplingParams(
                temperature=told.temperature,
                top_k=told.top_k,
                top_p=told.top_p,
                max_tokens=told.max_tokens,
            )
            self.lab_app.trainer.put(Sample(told.prompts[0] if told.prompts else "\n", params))
            run.ask("sampling")

    def action_learning_rate(self) -> None:
        if run := self._live():
            self.run_worker(self._ask_rate(run), group="dialog", exclusive=True)

    async def _ask_rate(self, run: RunState) -> None:
        from tui_lab.screens.dialogs import TextDialog

        now = run.last.lr if run.last else 0.0
        answer = await self.lab_app.ask(
            TextDialog(
                "Learning rate",
                "The rest of the schedule is scaled to go through the new value from the next "
                "step on. Empty gives the schedule back.",
                f"{now:.3g}",
                rate_from,
            )
        )
        if answer is not None:
            self.lab_app.trainer.put(answer)

    def action_stop(self) -> None:
        if run := self._live():
            self.run_worker(self._ask_stop(run), group="dialog", exclusive=True)

    async def _ask_stop(self, run: RunState) -> None:
        from tui_lab.screens.dialogs import Dialog

        kept = not (run.config and run.config.save.policy == "none")
        body = (
            f"Step {fmt.thousands(run.step)} is saved first; the run can be resumed from it."
            if kept
            else "This run keeps no checkpoint (save.policy = none): its weights are lost."
        )
        yes = "Stop and save" if kept else "Stop and lose it"
        if await self.lab_app.ask(
            Dialog("Stop this run?", body, yes=yes, no="Go on", danger=not kept)
        ):
            self.lab_app.stop_run()

    def action_zoom(self) -> None:
        settings, zooms = self.lab_app.settings, train_view.ZOOMS
        at = zooms.index(settings.zoom) if settings.zoom in zooms else 0
        settings.zoom = zooms[(at + 1) % len(zooms)]
        self._repaint()

    def action_log_scale(self) -> None:
        self.lab_app.settings.log_scale = not self.lab_app.settings.log_scale
        self._repaint()

    def _repaint(self) -> None:
        self.lab_app.settings.save()
        self._again()

    def _again(self) -> None:
        if self.lab_app.run_state is not None:
            self._show(self.lab_app.run_state, calm=True)

    def action_start_preset(self) -> None:
        if self.lab_app.run_state is None:
            self.lab_app.start_preset(PRESET)

    def action_talk(self) -> None:
        run = self.lab_app.run_state
        if run is not None and run.live:
            self.lab_app.open_console(None)
        elif run is not None and run.run:
            self.lab_app.open_console(run.run)

    def action_resume(self) -> None:
        run = self.lab_app.run_state
        if run is not None and not run.live and run.run:
            try:
                self.lab_app.resume_run(run.run)
            except EngineError as error:
                self.lab_app.show_error(error)


def rate_from(text: str) -> SetLearningRate:
    """The command that a typed rate means. Raises InputError."""
    if not text.strip():
        return SetLearningRate(None)
    try:
        rate = float(text)
    except ValueError:
        raise InputError(f"'{text}' is not a number", "for example 3e-4") from None
    if not 0 < rate < 10:
        raise InputError(f"{text}: must be above 0 (and below 10)", "for example 3e-4")
    return SetLearningRate(rate)


def _log(run: RunState) -> str:
    if run.path:
        return f"{run.path}/log.txt"
    return str(config_dir() / "app.log") if run.failed and run.failed.traceback else ""
