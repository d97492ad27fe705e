"""A widget made of ready lines, which repaints only the cells that changed.

Textual's own `Static` lays its content out anew on each update. Here the widget's size is its
container's affair, the lines are strips, and an unchanged cell costs neither drawing nor bytes on
a slow link.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.css.styles import RenderStyles
from textual.dom import DOMNode
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
    """Subclasses say `build(width, height)`; `redraw()` builds again and repaints differences.

    Its parts are styled when they are first drawn. Textual styles every part of every widget when
    it comes into being, and again when the focus does: a tenth of what a dialog takes to open.
    """

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
        self._made: dict[tuple[Piece, ...], Strip] = {}  # the lines of this picture, and
        self._kept: dict[tuple[Piece, ...], Strip] = {}  # of the one before
        self._drawn_for: tuple[Size, str] | None = None

    def build(self, width: int, height: int) -> Iterable[Strip]:
        """The lines from the top; missing ones are blank, surplus ones are left out."""
        raise NotImplementedError

    def forget(self) -> None:
        """Throw away what a subclass keeps of its picture: size or colours are others now."""

    def redraw(self) -> None:
        """Build the lines and ask for a repaint of what differs from what is shown."""
        size = self.size
        if size.width and size.height and (changed := self._build_anew(size)):
            self.refresh(*changed)

    def _build_anew(self, size: Size) -> list[Region]:
        """Where the lines are others than before."""
        width, height = size
        before = self._strips
        if before and before[0].cell_length != width:
            before = []
        self._renew_styles(size)
        self._strips = self._lines(width, height)
        changed = []
        for y, strip in enumerate(self._strips):
            if y >= len(before):
                changed.append(Region(0, y, width, 1))
            elif before[y] is not strip and before[y] != strip:
                left, right = difference(before[y], strip)
                changed.append(Region(left, y, right - left, 1))
        return changed

    def _renew_styles(self, size: Size) -> None:
        key = (size, self.app.theme)
        if self._drawn_for != key:
            self._styles.clear()
            self._made.clear()
            self.forget()
            self._drawn_for = key

    def _lines(self, width: int, height: int) -> list[Strip]:
        base = self.part("")
        self._kept, self._made = self._made, {}
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
        """A line of texts (already made visible) and the parts that they are drawn as; the same
        object as in the picture before where the pieces are the same."""
        line = self._kept.get(pieces) or self._made.get(pieces)
        if line is None:
            line = self._strip_of(pieces)
        self._made[pieces] = line
        return line

    def _strip_of(self, pieces: tuple[Piece, ...]) -> Strip:
        if not getattr(self.app, "unicode", True):
            pieces = tuple((text.translate(PLAIN), name) for text, name in pieces)
        return Strip([Segment(text, self.part(name)) for text, name in pieces if text])

    def _background(self) -> Style:
        return Style(bgcolor=self.part("").bgcolor)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._component_styles.clear()
        self._drawn_for = None

    @classmethod
    def _get_component_classes(cls) -> frozenset[str]:
        return frozenset()  # for Textual to style none

    def get_component_styles(self, *names: str) -> RenderStyles:
        for name in names:
            if name not in self._component_styles and name in super()._get_component_classes():
                part = DOMNode(classes=name)
                part._attach(self)
                self.app.stylesheet.apply(part, animate=False)
                self._component_styles[name] = part.styles
        return super().get_component_styles(*names)

    def ready_lines(self) -> list[Strip]:
        """The lines as they are to be drawn: see `tui_lab.compositor`."""
        size = self.size
        if self._drawn_for != (size, self.app.theme) or len(self._strips) != size.height:
            known = len(self._strips) == size.height
            changed = self._build_anew(size)
            # Perhaps a part of it alone is painted now: the rest may no longer be as it is shown.
            if known and changed:
                self.refresh(*changed)
        return self._strips

    def render_line(self, y: int) -> Strip:
        lines = self.ready_lines()
        return lines[y] if y < len(lines) else Strip.blank(self.size.width, self.rich_style)


def difference(before: Strip, after: Strip) -> tuple[int, int]:
    """From which cell to before which one two unequal lines of the same width differ."""
    old, new = list(before), list(after)
    left, right = 0, after.cell_length
    first, last_old, last_new = 0, len(old), len(new)
    while first < min(last_old, last_new) and old[first] == new[first]:
        left += cell_len(new[first].text)
        first += 1
    while first < min(last_old, last_new) and old[last_old - 1] == new[last_new - 1]:
        last_old, last_new = last_old - 1, last_new - 1
        right -= cell_len(new[last_new].text)
    if first < min(last_old, last_new):
        left += _alike(old[first], new[first], 1)
        right -= _alike(old[last_old - 1], new[last_new - 1], -1)
    return left, right


def _alike(one: Segment, other: Segment, step: int) -> int:
    """Cells that two segments have in common at the front (`step` 1) or at the end (-1)."""
    if one.style != other.style or not (_is_narrow(one.text) and _is_narrow(other.text)):
        return 0
    pairs = zip(one.text[::step], other.text[::step], strict=False)
    count = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        count += 1
    return count


def _is_narrow(text: str) -> bool:
    """Whether each character has one cell: no wide one, and none that joins another's."""
    return text.isascii() or all(get_character_cell_size(character) == 1 for character in text)
