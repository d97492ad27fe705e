"""Three themes of our own: dark, light, and high contrast. Colours only, no layout."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dark",
    dark=True,
    primary="#6fc3df",
    secondary="#8fa3b8",
    accent="#c8a6f0",
    foreground="#d5dbe3",
    background="#101419",
    surface="#161b22",
    panel="#1e252e",
    success="#86c987",
    warning="#e3b866",
    error="#ee7f7a",
    variables={
        "border": "#303a46",
        "border-blurred": "#303a46",
        "block-cursor-foreground": "#101419",
    },
)

LIGHT = Theme(
    name="light",
    dark=False,
    primary="#0b6e8f",
    secondary="#5b6b7c",
    accent="#7a3fb0",
    foreground="#1f2730",
    background="#fbfaf7",
    surface="#f2f0ea",
    panel="#e6e3da",
    success="#2e7d32",
    warning="#9a6400",
    error="#b3261e",
    variables={"border": "#c9c4b7", "border-blurred": "#c9c4b7"},
)

CONTRAST = Theme(
    name="contrast",
    dark=True,
    primary="#00e5ff",
    secondary="#ffffff",
    accent="#ffea00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#262626",
    success="#00ff5f",
    warning="#ffd700",
    error="#ff6b6b",
    text_alpha=1.0,
    variables={
        "border": "#ffffff",
        "border-blurred": "#9e9e9e",
        "text-muted": "#d0d0d0",
        "text-disabled": "#a0a0a0",
    },
)

THEMES = {theme.name: theme for theme in (DARK, LIGHT, CONTRAST)}


def following(name: str) -> str:
    """The theme after `name`, in a circle."""
    names = list(THEMES)
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]
