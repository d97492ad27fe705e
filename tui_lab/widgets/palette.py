"""Colours of the theme for widgets that draw their own lines.

Component classes would give the same colours, at the price of styling one more node each whenever
a screen is shown: with a hundred of them a key waits 30 ms longer for its screen.
"""

from __future__ import annotations

from textual.color import Color
from textual.widget import Widget


def theme_color(widget: Widget, name: str, strength: float = 1.0) -> Color:
    """The theme's colour `name` as it looks on the widget's ground, at 0 to 1 of its strength."""
    ground = widget.background_colors[1]
    return ground.blend(Color.parse(widget.app.theme_variables[name]), strength, alpha=1.0)
