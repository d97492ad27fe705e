"""The Train screen: a welcome until something trains, then the run's panels; and the keys.

What a run needs is imported when one begins: the first paint must not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult

from engine.errors import EngineError, InputError
from tui_lab import format as fmt
from tui_lab.keys import bindings
from tui_lab.screens.base import LabScreen
from tui_lab.widgets.welcome import Welcome

if TYPE_CHECKING:
    from engine.control import SetLearningRate
    from tui_lab.app import LabApp
    from tui_lab.screens.train_live import LivePanels
    from tui_lab.state import RunState

PRESET = "micro"
LIVE_KEYS = frozenset({"pause", "step", "save", "evaluate", "sample", "rate", "stop"})
ENDED_KEYS = frozenset({"talk", "resume"})


class TrainScreen(LabScreen):
    NAME = "train"
    CSS_PATH = "train.tcss"
    BINDINGS = bindings(NAME)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[int, int] = (-1, -1)  # of the run's version, and which run
        self._panels: LivePanels | None = None

    def compose_body(self) -> ComposeResult:
        yield Welcome(self.lab_app.unicode)

    def on_mount(self) -> None:
        self._set_keys(None)

    def on_resize(self) -> None:
        self.call_after_refresh(self._again)

    def tick(self, app: LabApp) -> None:
        run = app.run_state
        if run is None:
            return
        if self._seen == (run.version, id(run)):
            if self._panels is not None and self._panels.waiting:
                self._panels.show_charts(run)
            return
        if self._panels is None:
            from tui_lab.screens.train_live import LivePanels

            self._panels = LivePanels(app)
            self.mount(self._panels, after="Welcome")
            self.add_class("-running")
        turned = self._seen[1] != id(run) or run.live == self.has_class("-ended")
        self._seen = (run.version, id(run))
        self._set_keys(run)
        self.set_class(not run.live, "-ended")
        if self._panels.is_mounted:
            self._panels.show(run)
        if turned:
            self.call_after_refresh(self._again)  # the panels have their sizes only then

    def _again(self) -> None:
        run = self.lab_app.run_state
        if run is not None and self._panels is not None and self._panels.is_mounted:
            self._panels.show(run, whole=True)

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
            from engine.control import Pause, Resume

            trainer = self.lab_app.trainer
            resume = trainer.paused or run.status == "paused"  # the run also pauses by itself
            trainer.put(Resume() if resume else Pause())
            run.ask("" if resume else "pausing")

    def action_single_step(self) -> None:
        if self._live():
            from engine.control import Step

            self.lab_app.trainer.put(Step())

    def action_save(self) -> None:
        if run := self._live():
            from engine.control import SaveNow

            if run.config and run.config.save.policy == "none":
                self.lab_app.notify_safe("save.policy is none: nothing is kept", severity="warning")
                return
            self.lab_app.trainer.put(SaveNow())
            run.ask("saving")

    def action_evaluate(self) -> None:
        if run := self._live():
            from engine.control import EvalNow

            self.lab_app.trainer.put(EvalNow())
            run.ask("evaluating")

    def action_sample(self) -> None:
        if (run := self._live()) and run.config:
            from engine.control import Sample
            from engine.generation.params import SamplingParams

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
        from tui_lab.screens.train_view import ZOOMS as zooms

        settings = self.lab_app.settings
        at = zooms.index(settings.zoom) if settings.zoom in zooms else 0
        settings.zoom = zooms[(at + 1) % len(zooms)]
        self._repaint()

    def action_log_scale(self) -> None:
        self.lab_app.settings.log_scale = not self.lab_app.settings.log_scale
        self._repaint()

    def _repaint(self) -> None:
        self.lab_app.settings.save()
        self._again()

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
    from engine.control import SetLearningRate

    if not text.strip():
        return SetLearningRate(None)
    try:
        rate = float(text)
    except ValueError:
        raise InputError(f"'{text}' is not a number", "for example 3e-4") from None
    if not 0 < rate < 10:
        raise InputError(f"{text}: must be above 0 (and below 10)", "for example 3e-4")
    return SetLearningRate(rate)
