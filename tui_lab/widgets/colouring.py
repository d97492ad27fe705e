"""How a token is coloured: by its probability, by the entropy, or by what another model gives it.

Five steps each, drawn in colours, or in steps of text style where there are none. Knows nothing of
models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui_lab.widgets.palette import theme_color

LEVELS = (0.7, 0.4, 0.15, 0.05)
"""A token of at least the first probability is of level 0, of at least the second of level 1 …"""
ENTROPIES = (0.5, 1.5, 2.5, 4.0)
"""Nats: below the first level 0 (the model was sure), below the second level 1 …"""
NATS_APART = (math.log(8), math.log(2), -math.log(2), -math.log(8))
"""This model's log-probability less the other's: from the first on level 0, from the second on
level 1; level 2, much the same, is between a half and the double."""

_TINY = 1e-30
"""Stands for a probability of 0, whose logarithm is none."""
_ANSI = ("green", "cyan", "yellow", "magenta", "red")
_PLAIN = ("dim", "", "underline", "bold", "bold underline")
_ANSI_SIDES = ("yellow", "yellow", "default", "cyan", "cyan")
_PLAIN_SIDES = ("bold underline", "bold", "", "dim", "dim underline")


class Piece(NamedTuple):
    """A token with its probability, or other text (`probability` None) in the style of `role`."""

    text: str
    probability: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()
    role: str = "prompt"  # prompt, heading, note
    entropy: float = 0.0
    """Nats, of the distribution that the token was drawn from."""
    other: float | None = None
    """The probability that another model gives to the token; None where it was not asked."""


def level(probability: float) -> int:
    """0 (the model was sure) to 4 (a surprise). What is not a number is a surprise."""
    return _first(probability >= least for least in LEVELS)


def entropy_level(entropy: float) -> int:
    """0 (the model was sure) to 4 (it was at a loss). What is not a number is the last."""
    return _first(entropy < most for most in ENTROPIES)


def difference_level(probability: float, other: float) -> int:
    """0 (much likelier to this model) to 4 (much likelier to the other); 2: much the same."""
    apart = math.log(max(probability, _TINY)) - math.log(max(other, _TINY))
    return _first(apart >= nats for nats in NATS_APART)


def _first(reached: Iterable[bool]) -> int:
    return next((index for index, here in enumerate(reached) if here), len(LEVELS))


StyleKey = str | int | tuple[str, int]


@dataclass(frozen=True)
class Measure:
    """One way to colour: which style a token takes, and the legend that says so."""

    name: str
    title: str
    """For the legend, in words."""
    key: Callable[[Piece], StyleKey]
    ends: tuple[str, str]
    """What the first step means, and the last."""
    steps: tuple[str, ...]
    sides: bool = False
    """Whether the steps lead from one side over a middle to the other."""

    def style_of(self, piece: Piece) -> StyleKey:
        return piece.role if piece.probability is None else self.key(piece)

    def style_of_step(self, index: int) -> StyleKey:
        return ("side", index) if self.sides else index


def _difference_key(piece: Piece) -> StyleKey:
    if piece.other is None or piece.probability is None:
        return "heading"
    return ("side", difference_level(piece.probability, piece.other))


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "probability",
            "colour: probability",
            lambda piece: level(piece.probability or 0.0),
            ("likely", "surprising"),
            (*(f"≥{least * 100:.0f}%" for least in LEVELS), f"<{LEVELS[-1] * 100:.0f}%"),
        ),
        Measure(
            "entropy",
            "colour: entropy, in nats",
            lambda piece: entropy_level(piece.entropy),
            ("sure", "at a loss"),
            (*(f"<{most:g}" for most in ENTROPIES), f"≥{ENTROPIES[-1]:g}"),
        ),
        Measure(
            "difference",
            "colour: how much likelier here",
            _difference_key,
            ("here", "other"),
            ("×8", "×2", "same", "×2", "×8"),
            sides=True,
        ),
    )
}
"""In the order in which one key goes through them."""


class Coloured(Widget):
    """Styles by level: colours, or steps of text style where there is no colour."""

    measure: reactive[Measure] = reactive(MEASURES["probability"])
    _styles: dict[StyleKey, Style] | None = None

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles = None

    @property
    def styles_by_level(self) -> dict[StyleKey, Style]:
        """Styles for the levels 0 to 4, for ("side", 0) to ("side", 4) and for the roles, made once
        for a theme."""
        if self._styles is None:
            self._styles = self._make_styles()
        return self._styles

    def _make_styles(self) -> dict[StyleKey, Style]:
        ground = Style(bgcolor=self.background_colors[1].rich_color)

        def style(name: str, strength: float = 1.0) -> Style:
            return ground + Style(color=theme_color(self, name, strength).rich_color)

        styles: dict[StyleKey, Style] = {
            "prompt": style("foreground") + Style(bold=True),
            "heading": style("foreground", 0.65),
            "note": style("foreground", 0.65) + Style(italic=True),
        }
        if self.app.no_color:
            for index, (steps, sides) in enumerate(zip(_PLAIN, _PLAIN_SIDES, strict=True)):
                styles[index] = self.rich_style + Style.parse(steps)
                styles["side", index] = self.rich_style + Style.parse(sides)
            return styles
        # The ends are underlined as well: red and green are one colour to some.
        last = len(LEVELS)
        if self.app.console.color_system == "standard":
            # Sixteen colours: the nearest of them would be grey, so name them.
            for index, (steps, sides) in enumerate(zip(_ANSI, _ANSI_SIDES, strict=True)):
                styles[index] = ground + Style(color=steps, underline=index == last)
                styles["side", index] = ground + Style(color=sides, underline=index in (0, last))
            return styles
        for index, color in enumerate(self._ramp("success", "warning", "error")):
            styles[index] = ground + Style(color=color.rich_color, underline=index == last)
        for index, color in enumerate(self._ramp("warning", "foreground", "primary")):
            styles["side", index] = ground + Style(
                color=color.rich_color, underline=index in (0, last)
            )
        return styles

    def _ramp(self, first: str, middle: str, last: str) -> list[Color]:
        one, two, three = (theme_color(self, name) for name in (first, middle, last))
        return [one, one.blend(two, 0.5), two, two.blend(three, 0.5), three]


class Legend(Coloured):
    """What is coloured, and what the colours mean; in words too where there is room."""

    DEFAULT_CSS = "Legend { height: 2; width: 1fr; }"

    def _words(self) -> list[tuple[str, StyleKey]]:
        measure = self.measure
        words: list[tuple[str, StyleKey]] = []
        for index, step in enumerate(measure.steps):
            words += [(" ", "heading"), (step, measure.style_of_step(index))]
        first, last = (measure.ends[0], "heading"), (f" {measure.ends[1]}", "heading")
        room = sum(len(word) for word, _ in [first, *words, last])
        return [first, *words, last] if room <= self.content_size.width else words[1:]

    def render_line(self, y: int) -> Strip:
        styles = self.styles_by_level
        words = self._words() if y else [(self.measure.title, "heading")]
        segments = [Segment(word, styles[key]) for word, key in words]
        return Strip(segments).adjust_cell_length(self.content_size.width, self.rich_style)
