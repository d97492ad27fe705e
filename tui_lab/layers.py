"""A dialog put on a screen and taken off it: what appears is painted, or what it hid, alone."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from textual.app import App
from textual.await_complete import AwaitComplete
from textual.events import ScreenSuspend
from textual.screen import Screen

from tui_lab.compositor import covered, want_everything

if TYPE_CHECKING:
    from tui_lab.screens.base import Kept

    _App = App[int]
    AnyKept = TypeVar("AnyKept", bound=Kept[Any])
else:
    _App = object


class Layers(_App):
    """Mixed into the app."""

    @cached_property
    def _dialogs(self) -> dict[type, Any]:
        return {}

    def kept(self, kind: type[AnyKept]) -> AnyKept:
        """A dialog of this kind to put on: the one that was there before, unless it still is."""
        found = self._dialogs.get(kind)
        if found is None or any(found in stack for stack in self._screen_stacks.values()):
            found = self._dialogs[kind] = kind()
        return found

    def push_screen(self, screen: Any, *args: Any, **options: Any) -> Any:
        """As Textual's, but the screen below a dialog is not painted again: one sees it already."""
        from tui_lab.screens.base import LaidOutOnce, Modal

        below = self.screen
        held = isinstance(screen, Modal) and isinstance(below, LaidOutOnce)
        with below.held() if held else nullcontext():
            return super().push_screen(screen, *args, **options)

    def pop_screen(self) -> AwaitComplete:
        """As Textual's, but only what a dialog hid is painted again."""
        from tui_lab.screens.base import LaidOutOnce, Modal

        stack = self.screen_stack
        if len(stack) > 1 and isinstance(stack[-1], Modal) and isinstance(stack[-2], LaidOutOnce):
            stack[-2].uncover(covered(stack[-1]))
        return super().pop_screen()

    def _load_screen_css(self, screen: Screen) -> None:
        """As Textual's, which then reads all style sheets again and styles everything, once when a
        screen is first shown and once when it is shown again. Its own sheet may have been read only
        now, after it was styled itself, so that needs it; its widgets come later."""
        from tui_lab.screens.base import Kept

        super()._load_screen_css(screen)
        if isinstance(screen, Kept):
            screen.style_again()
        self.stylesheet.apply(screen)
        screen._css_update_count = self._css_update_count

    async def _replace_screen(self, screen: Screen) -> Screen:
        """What Textual does with a screen that was taken off, for a dialog without a paint of all
        that shows now, before and after."""
        from tui_lab.screens.base import Modal

        if not isinstance(screen, Modal):
            return await super()._replace_screen(screen)
        screen.post_message(ScreenSuspend())
        self.capture_mouse(None)
        if screen not in self._dialogs.values():
            await self._prune(screen)
        self._update_mouse_over(self.screen)
        return screen

    def paint_everything(self) -> None:
        """The terminal no longer shows what it was sent, below a dialog neither."""
        want_everything(self.screen)
        self.screen.refresh(layout=True).refresh()
