"""The application: one timer that looks at the run, six screens, settings, the keys of them all.

Knows nothing of how anything is drawn, and imports neither torch nor a screen before it is shown.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App, SystemCommand
from textual.events import Event, Key
from textual.screen import ModalScreen, Screen

from engine import collector
from engine.lab import Lab
from tui_lab import keys, themes
from tui_lab.current_run import CurrentRun
from tui_lab.keys import bindings, keys_of
from tui_lab.layers import Layers
from tui_lab.leaving import Leaving
from tui_lab.link import BYTES_PER_SECOND, Link
from tui_lab.pace import Pace
from tui_lab.settings import Settings, is_unicode
from tui_lab.sinks import Sinks
from tui_lab.widgets.lines import Piece

if TYPE_CHECKING:
    from tui_lab.screens.base import LabScreen
    from tui_lab.screens.dialogs import Dialog


SOON = 0.5  # seconds after the first paint: what can wait for it
TYPED = 32
"""Keys, the last ones, of which it is known which screen they were pressed on."""


def _screen(name: str) -> Callable[[], Screen]:
    def make() -> Screen:
        module = importlib.import_module(f"tui_lab.screens.{name}")
        return getattr(module, "".join(part.title() for part in name.split("_")) + "Screen")()

    return make


class LabApp(CurrentRun, Layers, Leaving, Link, Sinks, App[int]):
    """`session` stands in for `engine.session`, `clock` for the wall clock, in tests. `driver`: the
    class that Textual talks to the terminal with, None for its own. `attach`: the folder of a run
    to look at."""

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
        attach: Path | None = None,
        session: Any = None,
        clock: Callable[[], float] = time.time,
        driver: Any = None,
    ) -> None:
        super().__init__(driver_class=driver)
        self.lab = lab
        self.settings = settings or Settings()
        self.clock = clock
        self.unicode = is_unicode(self.settings)
        self.own_no_run(session)
        self._due = 0.0  # when the next look is
        self._typed: deque[tuple[Key, Screen]] = deque(maxlen=TYPED)
        self.pace = Pace(self.settings.refresh, self.settings.budget, BYTES_PER_SECOND)
        self.choose_link()
        self._start, self._attach = start, attach
        self.set_class(not self.unicode, "-ascii")
        for theme in themes.THEMES.values():
            self.register_theme(theme)
        self.theme = self.settings.theme if self.settings.theme in themes.THEMES else "dark"

    def on_mount(self) -> None:
        self._look_later()
        self.set_timer(SOON, self._read_styles)
        if self._start is not None:
            self.call_after_refresh(self.start_preset, self._start)
        if self._attach is not None:
            self.attach(self._attach)

    def _read_styles(self) -> None:
        """Those of all screens and dialogs, after the first is there: each would be read when it is
        first shown, and everything on the screen styled anew for it."""
        for path in sorted(Path(__file__).parent.glob("screens/*.tcss")):
            if not self.stylesheet.has_source(str(path), ""):
                self.stylesheet.read(path)
        self.stylesheet.reparse()

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

    def open_console(self, reference: str | None) -> None:
        """Show the console talking to a checkpoint, or (None) to the weights in training."""
        self.go("console")
        screen = self.screen_stack[0]
        self.call_after_refresh(screen.open_reference, reference)  # type: ignore[attr-defined]

    async def ask(self, dialog: Dialog) -> Any:
        """The answer to a dialog. Call it in a worker: `self.run_worker(self._delete())`."""
        return await self.push_screen_wait(dialog)

    # The timer.

    def _drain(self) -> None:
        try:
            self.take_events()
            self._tick()
            self.pace.spare = self.leaves_a_core
            self.pace.measure(self.bytes_drawn)
            self.keep_cost()
            if not self.pace.is_watched:
                collector.tidy()
        finally:
            self._look_later()

    def _look_later(self) -> None:
        seconds = self.pace.interval()
        self._due = time.monotonic() + seconds
        self._timer = self.set_timer(seconds, self._drain)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key) and not event.is_forwarded:
            self._typed.append((event, self.screen))
            self.pace.watched()
            if time.monotonic() + self.pace.interval() < self._due:
                self._timer.stop()
                self._look_later()
        await super().on_event(event)

    async def _on_key(self, event: Key) -> None:
        """A key that no widget wanted. Keys that come in one read, as they do over a slow link, are
        all under way before the first is answered: a dialog that it put on gets the others."""
        await asyncio.sleep(0)  # dialogs are put on by tasks
        meant = next((screen for key, screen in self._typed if key is event), self.screen)
        if self.screen is not meant and isinstance(self.screen, ModalScreen):
            event.prevent_default()
            (self.focused or self.screen)._forward_event(Key(event.key, event.character))

    def _tick(self) -> None:
        if len(self.screen_stack) != 1 or getattr(self._driver, "behind", False):
            # The app closes, a dialog is open (what lies behind it stands still), or the terminal
            # takes nothing.
            return
        screen = self.screen_stack[0]
        if hasattr(screen, "tick") and screen.is_mounted:
            with self.batch_update():
                self._show_status(screen)
                screen.tick(self)

    def _show_status(self, screen: LabScreen) -> None:
        from tui_lab.widgets.status import status_pieces

        pieces: list[Piece] = status_pieces(
            self.run_state,
            self.ui_share,
            self.unicode,
            short=screen.NAME == "train",
            slow_link=self.slow_link,
        )
        screen.topbar.show(*pieces)

    # Keys that work everywhere.

    action_go = go

    def action_next_theme(self) -> None:
        self._theme(themes.following(self.theme))

    def action_help(self) -> None:
        from tui_lab.screens.help import HelpScreen

        if len(self.screen_stack) == 1:
            dialog = self.kept(HelpScreen)
            dialog.show(self, getattr(self.screen, "NAME", ""))
            self.push_screen(dialog)

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
