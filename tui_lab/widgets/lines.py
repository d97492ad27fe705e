"""A widget made of ready lines, which repaints only the lines that changed.

Textual's own `Static` lays its content out anew on each update. Here the widget's size is its
container's affair, the lines are strips, and an unchanged line costs neither drawing nor bytes on
a slow link.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, str]
"""A text and the name of a part of the widget (a component class without its prefix)."""


def width_of(pieces: Iterable[Piece]) -> int:
    """How wide pieces that were made visible are on the terminal."""
    return sum(cell_len(text) for text, _ in pieces)


PLAIN = str.maketrans("·–—…←→↑↓▲▼●•×━─│", "---~<>^v^v*ox=-|", "°")
"""What our own texts are written with where there is no Unicode."""


class LineView(Widget):
    """Subclasses say `build(width, height)`; `redraw()` builds again and repaints differences."""

    PREFIX = "line-view"
    COMPONENT_CLASSES = {
        "line-view--text",
        "line-view--muted",
        "line-view--bright",
        "line-view--primary",
        "line-view--accent",
        "line-view--good",
        "line-view--warning",
        "line-view--error",
        "line-view--faint",
        "line-view--key",
        "line-view--axis",
        "line-view--raw",
        "line-view--smooth",
    }
    DEFAULT_CSS = """
    LineView {
        & > .line-view--text { color: $text; }
        & > .line-view--muted { color: $text-muted; }
        & > .line-view--faint { color: $text-disabled; }
        & > .line-view--raw { color: $primary 45%; }
        & > .line-view--smooth { color: $primary; text-style: bold; }
        & > .line-view--axis { color: $foreground 35%; }
        & > .line-view--key { color: $primary; text-style: bold; }
        & > .line-view--bright { color: $text; text-style: bold; }
        & > .line-view--primary { color: $primary; }
        & > .line-view--accent { color: $accent; }
        & > .line-view--good { color: $success; }
        & > .line-view--warning { color: $warning; }
        & > .line-view--error { color: $error; text-style: bold; }
    }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip] = []
        self._styles: dict[str, Style] = {}
        self._drawn_for: tuple[Size, str] | None = None

    def build(self, width: int, height: int) -> Iterable[Strip]:
        """The lines from the top; missing ones are blank, surplus ones are left out."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Build the lines and ask for a repaint of those that differ from what is shown."""
        width, height = self.size
        if not width or not height:
            return
        before = self._strips
        self._renew_styles()
        after = self._lines(width, height)
        self._strips = after
        changed = [
            Region(0, y, width, 1)
            for y, strip in enumerate(after)
            if y >= len(before) or before[y] != strip
        ]
        if changed:
            self.refresh(*changed)

    def _renew_styles(self) -> None:
        key = (self.size, self.app.theme)
        if self._drawn_for != key:
            self._styles.clear()
            self._drawn_for = key

    def _lines(self, width: int, height: int) -> list[Strip]:
        base = self.part("")
        lines = [strip.adjust_cell_length(width, base) for strip in self.build(width, height)]
        blank = Strip([Segment(" " * width, base)], width)
        return lines[:height] + [blank] * (height - len(lines))

    def part(self, name: str) -> Style:
        """The style of a part, as the stylesheet and the theme have it."""
        style = self._styles.get(name)
        if style is None:
            style = self.get_component_rich_style(f"line-view--{name}") if name else self.rich_style
            self._styles[name] = style
        return style

    def strip(self, *pieces: Piece) -> Strip:
        """A line of texts (already made visible) and the parts that they are drawn as."""
        if not getattr(self.app, "unicode", True):
            pieces = tuple((text.translate(PLAIN), name) for text, name in pieces)
        return Strip([Segment(text, self.part(name)) for text, name in pieces if text])

    def _background(self) -> Style:
        return Style(bgcolor=self.part("").bgcolor)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn_for = None

    def render_line(self, y: int) -> Strip:
        if self._drawn_for != (self.size, self.app.theme) or len(self._strips) != self.size.height:
            self._renew_styles()
            self._strips = self._lines(*self.size)
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.rich_style)
