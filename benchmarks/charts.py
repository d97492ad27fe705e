"""Charts as SVG text, for pages that are read in a browser. Knows nothing of what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 44
COLOURS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df", "#6e7781")
"""Told apart by the commonest kinds of colour blindness too, in this order."""
INK, FAINT, PAPER = "#24292f", "#d0d7de", "#ffffff"


@dataclass(frozen=True)
class Series:
    """One curve; `low` and `high` are the edges of the band around it, empty for none. `dash`: of
    the line, so that one that lies on another shows both."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    dash: str = "none"


@dataclass(frozen=True)
class Bar:
    """One bar; `low` and `high` are the ends of its whisker, None for none. `ours`: stands out."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False


BAR, GAP, NAMES, FIGURES = 22, 8, 190, 90
"""Heights of a bar and the room between two; widths of the names before and the figures behind."""


def bar_chart(title: str, x_label: str, bars: Sequence[Bar]) -> str:
    """An SVG document with a horizontal bar each, from 0. Raises ValueError without a bar."""
    if not bars:
        raise ValueError("nothing to draw")
    right = WIDTH - FIGURES
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    bottom = height - BOTTOM
    longest = max(max(bar.value, bar.high or 0.0) for bar in bars) or 1.0

    def across(x: float) -> float:
        return NAMES + x / longest * (right - NAMES)

    parts = _begin(height, title)
    for x in ticks(0, longest, 6):
        parts.append(_line(across(x), TOP, across(x), bottom, FAINT))
        parts.append(_text(across(x), bottom + 16, f"{x:,g}", anchor="middle"))
    parts.append(_text((NAMES + right) / 2, height - 8, x_label, anchor="middle"))
    for place, bar in enumerate(bars):
        top = TOP + place * (BAR + GAP) + GAP / 2
        middle, colour = top + BAR / 2, COLOURS[0] if bar.ours else COLOURS[4]
        parts.append(_text(NAMES - 8, middle + 4, bar.name, anchor="end"))
        parts.append(
            f'<rect x="{NAMES}" y="{top:.1f}" width="{across(bar.value) - NAMES:.1f}" '
            f'height="{BAR}" fill="{colour}"/>'
        )
        end = across(max(bar.value, bar.high or 0.0))
        if bar.low is not None and bar.high is not None:
            parts.append(_line(across(bar.low), middle, across(bar.high), middle, INK))
        parts.append(_text(end + 6, middle + 4, f"{bar.value:,.0f}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    curves: Sequence[Series],
    *,
    logarithmic: bool = False,
    mark: tuple[float, str] | None = None,
) -> str:
    """An SVG document with every curve on one pair of axes. `mark`: an x to draw a line at, and
    its name. Raises ValueError when there is nothing to draw."""
    xs = [x for curve in curves for x in curve.x]
    ys = [y for curve in curves for y in (*curve.y, *curve.low, *curve.high)]
    if not xs:
        raise ValueError("nothing to draw")
    bend = math.log10 if logarithmic else float
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(map(bend, ys)), max(map(bend, ys))
    pad = 0.05 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - pad, y_high + pad

    def across(x: float) -> float:
        return LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (bend(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(xs, ys, strict=True))

    parts = _begin(HEIGHT, title)
    for y in _log_ticks(y_low, y_high) if logarithmic else ticks(y_low, y_high):
        parts.append(_line(LEFT, down(y), WIDTH - RIGHT, down(y), FAINT))
        parts.append(_text(LEFT - 6, down(y) + 4, f"{y:g}", anchor="end"))
    for x in ticks(x_low, x_high):
        parts.append(_text(across(x), HEIGHT - BOTTOM + 16, f"{x:g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )
    if mark:
        at = across(mark[0])
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM, INK, dash="4 4"))
        parts.append(_text(at + 4, TOP + 12, mark[1]))
    at = float(LEFT)
    for curve, colour in zip(curves, COLOURS, strict=False):
        if curve.low:
            outline = f"{path(curve.x, curve.low)} {path(curve.x[::-1], curve.high[::-1])}"
            parts.append(f'<polygon points="{outline}" fill="{colour}" opacity="0.18"/>')
        parts.append(
            f'<polyline points="{path(curve.x, curve.y)}" fill="none" stroke="{colour}" '
            f'stroke-width="1.8" stroke-dasharray="{curve.dash}"/>'
        )
        parts.append(_line(at, 30, at + 18, 30, colour, width=3))
        parts.append(_text(at + 23, 34, curve.name))
        at += 40 + 7 * len(curve.name)
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, about: int = 8) -> list[float]:
    """Round numbers between `low` and `high`, about so many of them."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
    return [round(n * step, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 … between two logarithms; plain ticks where fewer than three lie there."""
    found = [
        digit * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for digit in (1, 2, 5)
        if low <= math.log10(digit * 10.0**power) <= high
    ]
    return found if len(found) >= 3 else ticks(10**low, 10**high)


def _begin(height: float, title: str) -> list[str]:
    """The beginning of a document: paper and title."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height:g}" fill="{PAPER}"/>',
        _text(LEFT, 16, title, weight="bold"),
    ]


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "none"
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-dasharray="{dash}"/>'
    )
