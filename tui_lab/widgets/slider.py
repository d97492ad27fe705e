"""Sliders and a seed field: one line each, worked by keys and mouse alike.

Left and right move (with shift: far), home and end go to the ends, a typed number is taken with
enter or by leaving, backspace brings the default back; click, drag and wheel do what they look
like. Knows nothing of what is being set.
"""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.geometry import clamp
from textual.message import Message
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget

from tui_lab.widgets.palette import theme_color
from tui_lab.widgets.scale import Scale

LABEL = 12  # cells
VALUE = 7
MARK = 2
TYPED = 19  # digits that a typed number may have


class Field(Widget, can_focus=True):
    """A focusable line with a label and a value that can be typed over."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    Field {
        height: 1;
        width: 1fr;
        &:disabled { opacity: 50%; }
    }
    """
    BINDINGS = [
        Binding("up", "app.focus_previous", "previous", show=False),
        Binding("down", "app.focus_next", "next", show=False),
        Binding("backspace,delete", "erase", "default", show=False),
        Binding("enter", "commit", "take the number", show=False),
    ]
    ACCEPTS = "0123456789"

    typed: reactive[str] = reactive("")

    def __init__(self, label: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label = label

    def on_key(self, event: events.Key) -> None:
        character = event.character
        if character is not None and character in self.ACCEPTS:
            if len(self.typed) < TYPED:
                self.typed += character
            event.stop()
            event.prevent_default()
        elif event.key == "escape" and self.typed:
            self.typed = ""
            event.stop()

    def on_blur(self) -> None:
        self.action_commit()

    def action_erase(self) -> None:
        if self.typed:
            self.typed = self.typed[:-1]
        else:
            self.reset()

    def action_commit(self) -> None:
        text, self.typed = self.typed, ""
        if text:
            self.take(text)

    def take(self, text: str) -> None:
        """Use what was typed."""
        raise NotImplementedError

    def reset(self) -> None:
        """Back to the default."""
        raise NotImplementedError

    def part(self, name: str) -> Style:
        """The style of the label, the value (`changed`: another than the default), track, knob."""
        focused = self.has_focus
        color, strength, bold = {
            "label": ("foreground", 1.0 if focused else 0.65, focused),
            "value": ("foreground", 0.8, False),
            "changed": ("foreground", 1.0, True),
            "track": ("foreground", 0.3, False),
            "knob": ("primary", 1.0, True) if focused else ("foreground", 0.7, False),
        }[name]
        return Style(foreground=theme_color(self, color, strength), bold=bold or None)

    @property
    def changed(self) -> bool:
        """Whether the value is another than the default."""
        raise NotImplementedError

    def head(self, value: str) -> Content:
        """The mark of the focus, the label, and the value (or what is being typed)."""
        shown = f"{self.typed}▏" if self.typed else value
        return Content.assemble(
            ("▸ " if self.has_focus else "  ", self.part("knob")),
            (f"{self.label[: LABEL - 1]:<{LABEL}}", self.part("label")),
            (f"{shown[-VALUE:]:>{VALUE}}", self.part("changed" if self.changed else "value")),
        )


class Slider(Field):
    """One number on a track. `Changed` comes with every change of the value, whoever made it."""

    BINDINGS = [
        Binding("left,h", "nudge(-1)", "less", show=False),
        Binding("right,l", "nudge(1)", "more", show=False),
        Binding("shift+left,H", "nudge(-1, True)", "much less", show=False),
        Binding("shift+right,L", "nudge(1, True)", "much more", show=False),
        Binding("home", "go(-1)", "least", show=False),
        Binding("end", "go(1)", "most", show=False),
    ]
    ACCEPTS = "0123456789."

    value: reactive[float] = reactive(0.0)

    class Changed(Message):
        def __init__(self, slider: Slider, value: float) -> None:
            super().__init__()
            self.slider = slider
            self.value = value

        @property
        def control(self) -> Slider:
            return self.slider

    def __init__(self, label: str, scale: Scale, default: float, *, id: str | None = None) -> None:
        super().__init__(label, id=id)
        self.scale = scale
        self.default = default
        self._dragging = False
        self.set_reactive(Slider.value, default)

    def validate_value(self, value: float) -> float:
        return self.scale.clamp(value)

    def watch_value(self, old: float, new: float) -> None:
        if old != new:
            self.post_message(self.Changed(self, new))

    def text(self, value: float) -> str:
        if self.scale.off is not None and value == self.scale.off:
            return "off"
        return f"{value:.{self.scale.digits}f}"

    def render(self) -> Content:
        head = self.head(self.text(self.value))
        width = self._track()[1]
        if width < 3:
            return head
        knob = round(self.scale.fraction(self.value) * (width - 1))
        default = round(self.scale.fraction(self.default) * (width - 1))
        rest = ["─"] * width
        if default > knob:
            rest[default] = "┼"
        return Content.assemble(
            head,
            " ",
            ("━" * knob, self.part("knob")),
            ("●", self.part("knob")),
            ("".join(rest[knob + 1 :]), self.part("track")),
        )

    def take(self, text: str) -> None:
        try:
            self.value = float(text)
        except ValueError:  # "1.2.3"
            self.app.bell()

    def reset(self) -> None:
        self.value = self.default

    @property
    def changed(self) -> bool:
        return self.value != self.default

    def action_nudge(self, direction: int, coarse: bool = False) -> None:
        self.typed = ""
        self.value = self.scale.nudge(self.value, direction, coarse)

    def action_go(self, end: int) -> None:
        self.typed = ""
        self.value = self.scale.end() if end > 0 else self.scale.start()

    def _track(self) -> tuple[int, int]:
        """The first cell of the track and how many there are."""
        start = MARK + LABEL + VALUE + 1
        return start, self.content_size.width - start

    def _point(self, x: int) -> None:
        start, width = self._track()
        if width >= 3:
            self.typed = ""
            self.value = self.scale.value_at(clamp((x - start) / (width - 1), 0.0, 1.0))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button != 1 or event.x < self._track()[0]:
            return
        self.capture_mouse()
        self._dragging = True
        self._point(event.x)
        event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging:
            self._point(event.x)
            event.stop()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._dragging:
            self._dragging = False
            self.release_mouse()
            event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.action_nudge(1)
        event.stop()
        event.prevent_default()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self.action_nudge(-1)
        event.stop()
        event.prevent_default()


class SeedField(Field):
    """A seed that is either fixed or drawn afresh each time (`value` None)."""

    BINDINGS = [Binding("space", "toggle", "fixed or random", show=False)]

    value: reactive[int | None] = reactive(None)

    class Changed(Message):
        def __init__(self, field: SeedField, value: int | None) -> None:
            super().__init__()
            self.field = field
            self.value = value

        @property
        def control(self) -> SeedField:
            return self.field

    def __init__(self, label: str, highest: int, *, id: str | None = None) -> None:
        super().__init__(label, id=id)
        self.highest = highest
        self.last: int | None = None  # the seed used last, which space fixes

    def watch_value(self, old: int | None, new: int | None) -> None:
        if old != new:
            self.post_message(self.Changed(self, new))

    def render(self) -> Content:
        if self.typed or self.value is not None:
            # A seed may be longer than a slider's value; nothing else stands on its line.
            shown = f"{self.typed}▏" if self.typed else str(self.value)
            remark = " fixed"
        else:
            shown, remark = "random", "" if self.last is None else f" last {self.last}"
        return Content.assemble(
            ("▸ " if self.has_focus else "  ", self.part("knob")),
            (f"{self.label[: LABEL - 1]:<{LABEL}}", self.part("label")),
            (f"{shown:>{VALUE}}", self.part("changed" if self.changed else "value")),
            (remark, self.part("track")),
        )

    def take(self, text: str) -> None:
        self.value = min(int(text), self.highest)

    def reset(self) -> None:
        self.value = None

    @property
    def changed(self) -> bool:
        return self.value is not None

    def action_toggle(self) -> None:
        self.typed = ""
        self.value = None if self.value is not None else self.last or 0

    def on_click(self) -> None:
        self.action_toggle()
