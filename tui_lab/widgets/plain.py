"""Glyphs for terminals that draw ASCII alone: each is replaced by one character of like meaning."""

from __future__ import annotations

from textual.app import App

GLYPHS = "▁▂▃▄▅▆▇█▸★●‖✓■✗◆▼▲↓→⏎⟨⟩×…–━▰▱·"
LETTERS = "_.-=oO#@>**=+#xov^v>$<>x.-=#.."
ASCII = str.maketrans(GLYPHS, LETTERS)


def plain(text: str, app: App) -> str:
    """`text` as this terminal can draw it; never of another width."""
    return text if getattr(app, "unicode", True) else text.translate(ASCII)
