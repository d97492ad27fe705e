"""The application: one timer that drains the training thread, six screens, settings, quitting.

Knows nothing of how anything is drawn, and imports neither torch nor a screen before it is shown.
"""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App, SystemCommand
from textual.screen import Screen

from engine.errors import EngineError
from engine.lab import Lab
from engine.text import visible
from tui_lab import keys, themes
from tui_lab.keys import bindings, keys_of
from tui_lab.leaving import Leaving
from tui_lab.pace import Pace
from tui_lab.settings import Settings, is_unicode
from tui_lab.trainer_thread import TrainerThread
from tui_lab.widgets.lines import Piece

if TYPE_CHECKING:
    from engine.config import Config
    from engine.events import Event
    from tui_lab.screens.base import LabScreen
    from tui_lab.screens.dialogs import Dialog
    from tui_lab.state import RunState


def _nobody(event: Event) -> None:
    """Listens to samples that no screen asked for."""


def _screen(name: str) -> Callable[[], Screen]:
    def make() -> Screen:
        module = importlib.import_module(f"tui_lab.screens.{name}")
        return getattr(module, "".join(part.title() for part in name.split("_")) + "Screen")()

    return make


class LabApp(Leaving, App[int]):
    """`session` stands in for `engine.session`, `clock` for the wall clock, in tests. `driver`: the
    class that Textual talks to the terminal with, None for its own."""

    TITLE = "tui-lab"
    CSS_PATH = "app.tcss"
    SCREENS = {name: _screen(name) for name in keys.SCREENS}
    # A stack of its own for each, so that a dialog stays with its screen.
    MODES = {name: name for name in keys.SCREENS}
    DEFAULT_MODE = "train"
    BINDINGS = bindings("")

    def __init__(
        self,
        lab: Lab,
        settings: Settings | None = None,
        *,
        start: str | None = None,
        session: Any = None,
        clock: Callable[[], float] = time.time,
        driver: Any = None,
    ) -> None:
        super().__init__(driver_class=driver)
        self.lab = lab
        self.settings = settings or Settings()
        self.clock = clock
        self.unicode = is_unicode(self.settings)
        self.run_state: RunState | None = None
        self.trainer = TrainerThread(session)
        self.pace = Pace(self.settings.refresh, self.settings.budget)
        self._start = start
        self._listeners: dict[str, Callable[[Event], None]] = {}
        self.set_class(not self.unicode, "-ascii")
        for theme in themes.THEMES.values():
            self.register_theme(theme)
        self.theme = self.settings.theme if self.settings.theme in themes.THEMES else "dark"

    def on_mount(self) -> None:
        self.watch_signals()
        self._timer = self.set_timer(self.pace.interval(), self._drain)
        if self._start is not None:
            self.call_after_refresh(self.start_preset, self._start)

    @property
    def ui_share(self) -> float:
        """What the screen costs: the interface thread's share of a core, 0 to 1."""
        return self.pace.share

    # What the screens call.

    def go(self, name: str) -> None:
        """Show a screen by its name."""
        if self.current_mode != name:
            self.switch_mode(name)
            self.call_after_refresh(self._tick)

    def delay_update(self, delay: float = 0.005) -> None:
        """Textual hides a change of mode for 50 ms, half of what a key may take to be answered."""
        super().delay_update(min(delay, 0.005))

    def start_preset(self, name: str) -> None:
        """Start a run of the preset called `name`, or say why not."""
        from engine.config import load_preset

        try:
            self.start_run(load_preset(self.lab, name), preset=name)
        except EngineError as error:
            self.show_error(error)

    def start_run(self, config: Config, *, preset: str = "", name: str | None = None) -> None:
        """Train `config` in the thread and show it. Raises EngineError while a run trains."""
        self.trainer.start("run_training", self.lab, config, name=name, preset=preset)
        from tui_lab.state import RunState

        self.run_state = RunState(config, name or preset, self.settings.smoothing)
        self.go("train")

    def resume_run(self, reference: str) -> None:
        """Go on with a run from a checkpoint. Raises EngineError while a run trains."""
        self.trainer.start("resume_training", self.lab, reference)
        from tui_lab.state import RunState

        self.run_state = RunState(None, reference, self.settings.smoothing)
        self.go("train")

    def open_console(self, reference: str | None) -> None:
        """Show the console talking to a checkpoint, or (None) to the weights in training."""
        self.go("console")
        screen = self.screen_stack[0]
        self.call_after_refresh(screen.open_reference, reference)  # type: ignore[attr-defined]

    def show_error(self, error: EngineError) -> None:
        """An engine's refusal, in its own words; the app goes on."""
        self.notify_safe(error.hint, title=error.title, severity="error")

    def notify_safe(self, text: str, *, title: str = "", severity: str = "information") -> None:
        """A notification of text from anywhere: made visible, never read as markup."""
        self.notify(
            visible(text),
            title=visible(title, lines=False),
            severity=severity,  # type: ignore[arg-type]
            timeout=8 if severity == "error" else 4,
            markup=False,
        )

    async def ask(self, dialog: Dialog) -> Any:
        """The answer to a dialog. Call it in a worker: `self.run_worker(self._delete())`."""
        return await self.push_screen_wait(dialog)

    def subscribe(self, request: str, callback: Callable[[Event], None]) -> None:
        """Hand TokenGenerated and SampleDone events of a live sample to `callback`, in the app."""
        self._listeners[request] = callback

    def unsubscribe(self, request: str) -> None:
        self._listeners.pop(request, None)

    # The timer.

    def _drain(self) -> None:
        try:
            self._take_events()
            self._tick()
            self.pace.measure()
        finally:
            self._timer = self.set_timer(self.pace.interval(), self._drain)

    def _take_events(self) -> None:
        events = self.trainer.events
        if not events and not self.leave_when_done:
            return
        from engine.events import RunStarted, SampleDone, TokenGenerated

        for _ in range(len(events)):
            event = events.popleft()
            if isinstance(event, TokenGenerated | SampleDone):
                self._listeners.get(event.request, _nobody)(event)
            if self.run_state is not None:
                self.run_state.apply(event)
                if isinstance(event, RunStarted):
                    gc.freeze()  # torch's objects stay: looking at them again would be 30 ms a time
                    if event.resumed:
                        self._recall(self.run_state, Path(event.path))
        if self.leave_when_done and not self.trainer.active and not events:
            self.exit(0)

    def _recall(self, run: RunState, path: Path) -> None:
        """Put a resumed run's past before what it says from now on."""

        def read() -> None:
            from tui_lab.history import past_events

            past = past_events(path)
            self.call_from_thread(run.preload, past)

        self.run_worker(read, thread=True, group="history", exit_on_error=False)

    def _tick(self) -> None:
        if len(self.screen_stack) != 1:
            return  # the app closes, or a dialog is open: what lies behind it stands still
        screen = self.screen_stack[0]
        if hasattr(screen, "tick") and screen.is_mounted:
            with self.batch_update():
                self._show_status(screen)
                screen.tick(self)

    def _show_status(self, screen: LabScreen) -> None:
        from tui_lab.widgets.status import status_pieces

        pieces: list[Piece] = status_pieces(
            self.run_state, self.ui_share, self.unicode, short=screen.NAME == "train"
        )
        screen.topbar.show(*pieces)

    # Keys that work everywhere.

    action_go = go

    def action_next_theme(self) -> None:
        self._theme(themes.following(self.theme))

    def action_help(self) -> None:
        from tui_lab.screens.help import HelpScreen

        if len(self.screen_stack) == 1:
            self.push_screen(HelpScreen(getattr(self.screen, "NAME", "")))

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        base = self.screen_stack[0]
        for key in (*keys_of(getattr(base, "NAME", "")), *keys_of("")):
            if key.id != "palette":
                runner = base if key.screen else self
                yield SystemCommand(
                    f"{key.help} ({key.written})",
                    keys.SCREENS.get(key.screen, "everywhere"),
                    lambda runner=runner, key=key: runner.run_action(key.action),
                )
        for theme in themes.THEMES:
            yield SystemCommand(f"Theme: {theme}", "remembered", lambda t=theme: self._theme(t))

    def _theme(self, name: str) -> None:
        self.theme = self.settings.theme = name
        self.settings.save()
