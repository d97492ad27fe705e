"""The last line of every screen: what the keys do here, from the table of keys."""

from __future__ import annotations

from rich.segment import Segment
from textual.events import Click
from textual.strip import Strip

from tui_lab.keys import Key, keys_of
from tui_lab.widgets.lines import LineView


class KeyBar(LineView):
    """Keys of the screen in the table's order, then help and quit. Where there is no room for all,
    the main ones are there, and help is called `more`: it has the rest."""

    DEFAULT_CSS = """
    KeyBar { dock: bottom; height: 1; width: 1fr; background: $panel; color: $text; }
    """

    def __init__(self, screen_name: str) -> None:
        super().__init__(id="keybar")
        self.screen_name = screen_name
        self._hidden: frozenset[str] = frozenset()
        self._renamed: dict[str, str] = {}
        self._left_out = False
        self._targets: list[tuple[int, int, Key]] = []

    def show(self, *, hidden: frozenset[str] = frozenset(), **labels: str) -> None:
        """Leave out the keys `hidden` (ids), and call others by a label of the moment."""
        if (hidden, labels) != (self._hidden, self._renamed):
            self._hidden, self._renamed = hidden, labels
            self.redraw()

    def build(self, width: int, height: int) -> list[Strip]:
        own = [k for k in keys_of(self.screen_name) if k.footer and k.id not in self._hidden]
        always = [key for key in keys_of("") if key.footer]
        space = width - 1 - sum(self._room(key) for key in always)
        fitting: set[str] = set()
        for key in sorted(own, key=lambda key: not key.main):
            if self._room(key) <= space:
                space -= self._room(key)
                fitting.add(key.id)
        shown = [key for key in own if key.id in fitting]
        self._left_out = len(shown) < len(own)
        segments, x = [Segment(" ")], 1
        self._targets = []
        for key in [*shown, None, *always]:
            if key is None:
                segments.append(Segment(" " * max(0, space)))
                x += max(0, space)
                continue
            segments.append(Segment(key.written, self.part("key")))
            segments.append(Segment(f" {self._label(key)}  ", self.part("muted")))
            self._targets.append((x, x + self._room(key) - 2, key))
            x += self._room(key)
        return [Strip(segments).apply_style(self._background())]

    def _label(self, key: Key) -> str:
        if key.id == "help" and self._left_out:
            return "more"
        return self._renamed.get(key.id, key.label)

    def _room(self, key: Key) -> int:
        return len(key.written) + len(self._label(key)) + 3

    async def on_click(self, event: Click) -> None:
        for start, stop, key in self._targets:
            if start <= event.x < stop:
                await self.screen.run_action(key.action if key.screen else f"app.{key.action}")
