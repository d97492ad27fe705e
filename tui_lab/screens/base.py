"""What every screen has: the top bar, its own body, the key bar, and `tick`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.screen import Screen

from tui_lab.compositor import sparse
from tui_lab.widgets.keybar import KeyBar
from tui_lab.widgets.topbar import TopBar

if TYPE_CHECKING:
    from tui_lab.app import LabApp


class LabScreen(Screen):
    """Subclasses set `NAME` (and `BINDINGS = bindings(NAME)`), and yield their body.

    The app calls `tick` on the visible screen alone, about four times a second and once when the
    screen is shown; a screen with nothing new paints nothing.
    """

    NAME: ClassVar[str] = ""
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        sparse(self)

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
