"""Textual's compositor, made to send only the cells that were said to have changed.

Textual's own renders every widget near a change, and sends each changed line from where its widget
begins, with all colours before and a reset behind every run of text. Here the cells that changed
are rendered alone, and colours are sent when they change. Full paints and everything about layout
are Textual's. Knows nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import Compositor, CompositorUpdate, LayoutUpdate
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[int, int, int, list[Segment]]
"""On which line and from where to where (not included) something stands, and what."""

Place = tuple[Widget, Region, Region]
"""A widget, the part of its region that can be seen, and its region."""


class CellsUpdate(CompositorUpdate):
    """Pieces of lines, from the top to the bottom and from left to right."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces

    def render_segments(self, console: Console) -> str:
        system = console._color_system or ColorSystem.TRUECOLOR
        written: list[str] = []
        now, place = "", (-1, -1)  # the style that is on, and where the cursor stands
        for y, start, stop, segments in self.pieces:
            if place != (y, start):
                written.append(f"\x1b[{y + 1};{start + 1}H")
            for text, style, _ in segments:
                told = _told(style, system)
                if told != now:
                    # From a clean slate: the style before may have been bold, this one is not.
                    written.append(f"\x1b[0;{told}m" if told else "\x1b[0m")
                    now = told
                if style is not None and style._link:
                    text = f"\x1b]8;id={style._link_id};{style._link}\x1b\\{text}\x1b]8;;\x1b\\"
                written.append(text)
            place = (y, stop)
        if now:
            written.append("\x1b[0m")
        return "".join(written)


def _told(style: Style | None, system: ColorSystem) -> str:
    """The numbers that switch a style on; none for no style."""
    if style is None:
        return ""
    # Textual keeps them with the style, for the one colour system that an app has.
    return style._ansi if style._ansi is not None else Strip.render_ansi(style, system)


class SparseCompositor(Compositor):
    """Stands in for a screen's own compositor: `sparse(screen)`.

    A widget that has `ready_lines()` promises that these are the finished lines of its content box
    (no opacity, tint, hatch, links or selection): changes inside of that box go past Textual's
    styling, which would cost more than all the rest.
    """

    def render_full_update(self, simplify: bool = False) -> LayoutUpdate:
        update = super().render_full_update(simplify)
        self._all_painted()
        return update

    def _all_painted(self) -> None:
        """What widgets have asked to be painted is painted now. As they come into being they ask
        a moment before the first paint, and Textual would hear of it behind that one."""
        for widget in self.visible_widgets:
            widget._exchange_repaint_regions()

    def render_partial_update(self) -> CellsUpdate | None:  # type: ignore[override]
        regions, screen = self._dirty_regions, self.size.region
        spans = list(self._regions_to_spans([region.intersection(screen) for region in regions]))
        regions.clear()
        update = _Update({y for y, _, _ in spans})
        pieces = [piece for span in spans for piece in self._pieces(*span, update)]
        return CellsUpdate(pieces) if pieces else None

    def _pieces(self, y: int, left: int, right: int, update: _Update) -> list[Piece]:
        """What stands on line `y` from `left` to before `right`: of each cell, the topmost."""
        gaps: list[tuple[int, int]] = [(left, right)]
        found: list[Piece] = []
        for place in self.layers_visible[y]:
            x, width = place[1].x, place[1].width
            covered = [(max(a, x), min(b, x + width)) for a, b in gaps if a < x + width and b > x]
            if not covered:
                continue
            found += self._of_widget(place, y, covered, update)
            gaps = list(_without(gaps, x, x + width))
            if not gaps:
                break
        return sorted(found, key=lambda piece: piece[1])

    def _of_widget(
        self, place: Place, y: int, intervals: list[tuple[int, int]], update: _Update
    ) -> list[Piece]:
        """What the widget at `place` draws on line `y` in these intervals."""
        widget, shown, region = place
        box = update.boxes.get(widget)
        if box is None:
            box = update.boxes[widget] = _Box(widget, region, shown, update)
        return [(y, start, stop, box.cells(y, start, stop)) for start, stop in intervals]


class OnTop(SparseCompositor):
    """The compositor of a modal screen, which has nothing of its own but its widgets: between them
    one sees the screen below as it is, on the terminal already when this one is put on top.

    That screen neither rendered nor sent anew is most of what a dialog takes to be there. Textual
    paints all of a screen whenever a widget comes or goes: here that is all of the dialog, and
    where a widget was before.
    """

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self._everything = False

    def want_everything(self) -> None:
        self._everything = True

    @property
    def covered(self) -> set[Region]:
        """Where the screen below cannot be seen."""
        places = self.visible_widgets.items()
        own = {at.intersection(clip) for widget, (at, clip) in places if widget is not self._screen}
        return {region for region in own if region}

    def render_update(self, full: bool = False, *args: Any, **options: Any) -> Any:
        """As Textual's; `full` is asked for to have a picture of the whole."""
        if full:
            # Textual keeps its picture of what lies below, and which screen that is, and would not
            # see that either has changed.
            self._screen._layout_cache.clear()
            self._screen._set_dirty()
            self._screen._exchange_repaint_regions()
            return super().render_update(full, *args, **options)
        whole = self.size.region
        if whole not in self._dirty_regions:
            return self.render_partial_update()
        if not self._everything:
            self._dirty_regions.discard(whole)
            self._dirty_regions |= self.covered
        self._everything = False
        update = self.render_partial_update()
        self._all_painted()
        return update

    def _of_widget(
        self, place: Place, y: int, intervals: list[tuple[int, int]], update: _Update
    ) -> list[Piece]:
        below = self._below() if place[0] is self._screen else None
        if below is None or y >= below.size.height:
            return super()._of_widget(place, y, intervals, update)
        return [piece for interval in intervals for piece in below._pieces(y, *interval, update)]

    def _below(self) -> SparseCompositor | None:
        """Of the screen below."""
        stack = self._screen.app.screen_stack
        place = stack.index(self._screen) if self._screen in stack else 0
        compositor = stack[place - 1]._compositor if place else None
        return compositor if isinstance(compositor, SparseCompositor) else None


class _Update:
    """One update: the lines in which something changed, and the widgets that it has come to."""

    def __init__(self, lines: set[int]) -> None:
        self.boxes: dict[Widget, _Box] = {}
        self.until: dict[int, int] = {}
        """Of each of the lines, the next one in which nothing did."""
        for y in sorted(lines, reverse=True):
            self.until[y] = self.until.get(y + 1, y + 1)


class _Box:
    """A widget at its place on the screen, for the time of one update."""

    def __init__(self, widget: Widget, region: Region, shown: Region, update: _Update) -> None:
        self._widget, self._region, self._bottom = widget, region, shown.bottom
        self._until = update.until
        self._rendered: dict[int, Strip] = {}
        ready: Callable[[], list[Strip]] | None = getattr(widget, "ready_lines", None)
        self._lines: list[Strip] = []
        if ready is not None:
            self._lines = ready()
            self._content = region.shrink(widget.styles.gutter)
            self._background = widget.background_colors[1]
            self._filters = widget.get_line_filters()

    def cells(self, y: int, start: int, stop: int) -> list[Segment]:
        """What the widget draws on line `y` of the screen from `start` to before `stop`."""
        if self._lines:
            x, top, width, _ = self._content
            if 0 <= y - top < len(self._lines) and x <= start and stop <= x + width:
                segments = cropped(self._lines[y - top], start - x, stop - x)
                for line_filter in self._filters:
                    segments = line_filter.apply(segments, self._background)
                return segments
        region = self._region
        if y not in self._rendered:
            # Lines that follow each other at once: asking for them takes as long as drawing them.
            count = min(self._until[y], self._bottom) - y
            lines = self._widget.render_lines(Region(0, y - region.y, region.width, count))
            self._rendered.update(enumerate(lines, y))
        return list(self._rendered[y].crop(start - region.x, stop - region.x))


def cropped(line: Iterable[Segment], start: int, stop: int) -> list[Segment]:
    """The cells of a line from `start` to before `stop`."""
    found, left = [], 0
    for segment in line:
        right = left + cell_len(segment.text)
        if right > start:
            if left < start:
                segment = segment.split_cells(start - left)[1]
                left = start
            if right > stop:
                segment = segment.split_cells(stop - left)[0]
            found.append(segment)
        left = right
        if right >= stop:
            break
    return found


def _without(gaps: Iterable[tuple[int, int]], start: int, stop: int) -> Iterable[tuple[int, int]]:
    """What is left of the intervals outside of `start` to before `stop`."""
    for left, right in gaps:
        if left < min(right, start):
            yield left, min(right, start)
        if max(left, stop) < right:
            yield max(left, stop), right


def sparse(screen: Screen, *, on_top: bool = False) -> None:
    """Have `screen` (which nothing was drawn on yet) send changed cells only; `on_top`: of another
    screen, which shows wherever it has no widget."""
    screen._compositor = OnTop(screen) if on_top else SparseCompositor()


def covered(screen: Screen) -> set[Region]:
    """Where a screen that is on top hides the one below."""
    compositor = screen._compositor
    return compositor.covered if isinstance(compositor, OnTop) else {screen.size.region}


def want_everything(screen: Screen) -> None:
    """The next time that all of `screen` is painted, the screens that it is on top of are too."""
    if isinstance(screen._compositor, OnTop):
        screen._compositor.want_everything()
