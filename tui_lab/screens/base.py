"""What every screen has: the top bar, its own body, the key bar, and `tick`. And what may stand on
top of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.events import ScreenResume
from textual.geometry import Size
from textual.screen import ModalScreen, Screen

from tui_lab.compositor import sparse
from tui_lab.widgets.keybar import KeyBar
from tui_lab.widgets.topbar import TopBar

if TYPE_CHECKING:
    from tui_lab.app import LabApp


Answer = TypeVar("Answer")


class LaidOutOnce(Screen[Answer]):
    """A screen that is laid out and painted for its size once. Textual does it twice when a screen
    is first shown, and again whenever it is: for a dialog 2 to 11 kB more to the terminal."""

    def _screen_resized(self, size: Size) -> None:
        if size != self._size:
            super()._screen_resized(size)


class Modal(LaidOutOnce[Answer], ModalScreen[Answer]):
    """What stands on top of a screen until it is answered."""

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Its widgets were styled as they came into being, a moment ago."""
        event.refresh_styles = False


class LabScreen(LaidOutOnce[None]):
    """Subclasses set `NAME` (and `BINDINGS = bindings(NAME)`), and yield their body.

    The app calls `tick` on the visible screen alone, about four times a second and once when the
    screen is shown; a screen with nothing new paints nothing.
    """

    NAME: ClassVar[str] = ""
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        sparse(self)
        self._styled_for: object = None

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Textual styles every widget anew when a screen is shown again, which is half of what a
        key takes to be answered. Nothing is different unless the app is: in its stylesheet, to
        which `switch_mode` sees, in its classes, or in having the focus."""
        looks = (self.app.classes, self.app.app_focus)
        event.refresh_styles = event.refresh_styles and looks != self._styled_for
        self._styled_for = looks

    def compose(self) -> ComposeResult:
        yield TopBar(self.NAME)
        yield from self.compose_body()
        yield KeyBar(self.NAME)

    def compose_body(self) -> ComposeResult:
        """The widgets between the bars."""
        raise NotImplementedError

    def tick(self, app: LabApp) -> None:
        """Show what changed since the last call."""

    @property
    def lab_app(self) -> LabApp:
        """The app, typed."""
        return self.app  # type: ignore[return-value]

    @property
    def keybar(self) -> KeyBar:
        return self.query_one(KeyBar)

    @property
    def topbar(self) -> TopBar:
        return self.query_one(TopBar)
