"""The first line of every screen: where one is, how the run does, what the screen costs."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.events import Click
from textual.strip import Strip

from engine.text import visible
from tui_lab.keys import SCREENS
from tui_lab.widgets.lines import LineView, Piece, width_of


class TopBar(LineView):
    """Tabs on the left, status on the right; the tabs give way where the line is narrow."""

    DEFAULT_CSS = """
    TopBar { dock: top; height: 1; width: 1fr; background: $panel; color: $text; }
    """

    def __init__(self, screen_name: str) -> None:
        super().__init__(id="topbar")
        self.screen_name = screen_name
        self.status: tuple[Piece, ...] = ()
        self._targets: list[tuple[int, int, str]] = []

    def show(self, *status: Piece) -> None:
        """The status pieces, most important first; the last ones are dropped where it is narrow."""
        if status != self.status:
            self.status = status
            self.redraw()

    def build(self, width: int, height: int) -> list[Strip]:
        status = [(visible(text, lines=False, most=width), part) for text, part in self.status]
        while status and width_of(status) > width - self._tabs_width(self._number_only) - 3:
            status.pop()
        room = width - width_of(status) - 2
        label = next(
            (form for form in (self._full, self._active_only) if self._tabs_width(form) <= room),
            self._number_only,
        )
        segments = [Segment(" ")]
        self._targets, x = [], 1
        for number, name in enumerate(SCREENS, 1):
            key, title = f" {number}", label(name)
            active = name == self.screen_name
            strong = self.part("bright") + Style(reverse=True)
            text = f"{key} {title} " if title else f"{key} "
            segments.append(Segment(text, strong if active else self.part("muted")))
            self._targets.append((x, x + len(text), name))
            x += len(text)
        segments.append(Segment(" " * max(1, width - x - width_of(status) - 1)))
        segments += [Segment(text, self.part(part)) for text, part in status]
        segments.append(Segment(" "))
        return [Strip(segments).apply_style(self._background())]

    def _full(self, name: str) -> str:
        return SCREENS[name]

    def _active_only(self, name: str) -> str:
        return SCREENS[name] if name == self.screen_name else ""

    def _number_only(self, name: str) -> str:
        return ""

    def _tabs_width(self, form) -> int:
        return 1 + sum(
            len(f" {n} {form(name)}") + bool(form(name)) for n, name in enumerate(SCREENS, 1)
        )

    async def on_click(self, event: Click) -> None:
        for start, stop, name in self._targets:
            if start <= event.x < stop:
                await self.run_action(f"app.go('{name}')")
