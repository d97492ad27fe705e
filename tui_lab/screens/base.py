"""What every screen has: the top bar, its own body, the key bar, and `tick`. And what may stand on
top of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from textual.app import ComposeResult
from textual.events import ScreenResume
from textual.geometry import Region, Size
from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from engine import collector
from tui_lab.compositor import covered, sparse, want_everything
from tui_lab.widgets.keybar import KeyBar
from tui_lab.widgets.topbar import TopBar

if TYPE_CHECKING:
    from tui_lab.app import LabApp


Answer = TypeVar("Answer")


class LaidOutOnce(Screen[Answer]):
    """A screen that is laid out and painted for its size once. Textual does it twice when a screen
    is first shown, and again whenever it is: for a dialog 2 to 11 kB more to the terminal."""

    _held = False
    _uncovered: set[Region] | None = None

    def _screen_resized(self, size: Size) -> None:
        if size != self._size:
            super()._screen_resized(size)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile it is not to be painted as a whole: the terminal has it already."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def uncover(self, regions: set[Region]) -> None:
        """What stood on top of it, in these regions, is gone, and it will be told that it is the
        screen that shows."""
        self._uncovered = regions

    def refresh(self, *regions: Region, **what: bool) -> Self:
        if self._held and not (regions or what.get("layout") or what.get("recompose")):
            return self
        return super().refresh(*regions, **what)

    def show_again(self, event: ScreenResume, regions: set[Region]) -> None:
        """Do what Textual does when a screen is to show, but paint no more than `regions`."""
        event.prevent_default()
        self.stack_updates += 1
        self.app._refresh_notifications()
        self._update_auto_focus()
        self._screen_resized(self.app.size)
        self.paint(regions)

    def paint(self, regions: set[Region]) -> None:
        """Paint these parts of it. Textual's `refresh` would forget which widgets have changed."""
        if regions:
            self._compositor._dirty_regions |= regions
            self._dirty_widgets.add(self)
            self.check_idle()

    def _compositor_refresh(self) -> None:
        """Textual's, but what changes below a dialog takes nothing from what changes in it."""
        top, dirty = self.app.screen, self._compositor._dirty_regions
        if self is top or not isinstance(top, Modal) or self not in self.app._background_screens:
            super()._compositor_refresh()
            return
        if self.size.region in dirty:
            want_everything(top)
        top.paint(set(dirty))
        dirty.clear()
        self._dirty_widgets.clear()


class Modal(LaidOutOnce[Answer], ModalScreen[Answer]):
    """What stands on top of a screen until it is answered."""

    def __init__(self) -> None:
        super().__init__()
        sparse(self, on_top=True)

    def _screen_resized(self, size: Size) -> None:
        if self._size and size != self._size:
            want_everything(self)
        super()._screen_resized(size)

    def _reset_focus(self, widget: Widget, avoiding: list[Widget] | None = None) -> None:
        if self not in (avoiding or ()):  # else it goes as a whole: nobody sees what it would style
            super()._reset_focus(widget, avoiding)

    def refresh(self, *regions: Region, **what: bool) -> Self:
        """As Textual's, but to lay it out paints what is then at another place, and no more."""
        if what.get("layout"):
            what["repaint"] = False
        return super().refresh(*regions, **what)

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Its widgets were styled as they came into being, a moment ago; they are painted when they
        are laid out."""
        regions, self._uncovered = self._uncovered, None
        if regions is None and self._size == self.app.size:  # another screen was shown instead
            want_everything(self)
            regions = {self.size.region}
        self.show_again(event, regions or set())


class Kept(Modal[Answer]):
    """A dialog that is made once and put on again (`app.kept`): made, styled and laid out, it is
    there in a quarter of the time. Subclasses are made without arguments, and are told what to show
    before each time."""

    _styled_for: object = None

    def style_again(self) -> None:
        """Before it is put on: for the app as it looks now."""
        if self.is_attached:
            self.uncover(covered(self))
        looks = (self.app._css_update_count, self.app.classes, self.app.app_focus)
        if self._styled_for not in (None, looks):
            self.app.stylesheet.update(self)
        self._styled_for = looks


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
        if self._styled_for is None:
            self.call_after_refresh(collector.put_away)
        looks = (self.app.classes, self.app.app_focus)
        event.refresh_styles = event.refresh_styles and looks != self._styled_for
        self._styled_for = looks
        regions, self._uncovered = self._uncovered, None
        if regions is not None and not event.refresh_styles:
            self.show_again(event, regions)

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
