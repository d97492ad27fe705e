"""The coloured text: what is drawn, what a step of the cursor does, what a long text costs."""

from __future__ import annotations

import time

import pytest
from textual.app import App, ComposeResult

from tui_lab.widgets.colouring import Legend, Piece, level
from tui_lab.widgets.token_text import TokenText


class Texts(App):
    CSS = "TokenText { height: 10; width: 30; }"

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[int | None] = []

    def compose(self) -> ComposeResult:
        yield TokenText()
        yield Legend()

    def on_token_text_cursor_moved(self, event: TokenText.CursorMoved) -> None:
        self.moves.append(event.piece)


def styles_on(view: TokenText, y: int) -> dict[str, object]:
    return {segment.text: segment.style for segment in view.render_line(y) if segment.text.strip()}


TOKENS = [
    Piece("Once", role="prompt"),
    Piece(" sure", 0.9),
    Piece(" maybe", 0.3),
    Piece("\n", 0.5),
    Piece("", 0.5),
    Piece(" odd", 0.001),
]


@pytest.fixture
async def view():
    async with Texts().run_test(size=(40, 14)) as pilot:
        view = pilot.app.query_one(TokenText)
        view.pilot = pilot
        yield view


def test_levels():
    assert [level(p) for p in (1, 0.7, 0.69, 0.4, 0.15, 0.05, 0.049, 0)] == [0, 0, 1, 1, 2, 3, 4, 4]
    assert level(float("nan")) == 4


async def test_tokens_have_colours_by_probability(view):
    view.append(TOKENS)
    first, second = styles_on(view, 0), styles_on(view, 1)
    colours = {first[" sure"].color, first[" maybe"].color, second[" odd"].color}
    assert len(colours) == 3
    assert second[" odd"].underline, "a surprise is told without colour too"
    assert first["Once"].bold


async def test_without_colour_the_levels_differ_in_style(monkeypatch):
    """NO_COLOR: dim, plain, underlined, bold, both."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with Texts().run_test() as pilot:
        view = pilot.app.query_one(TokenText)
        view.append([Piece("x", p) for p in (0.9, 0.5, 0.2, 0.1, 0.01)])
        styles = [
            (bool(s.style.dim), bool(s.style.bold), bool(s.style.underline))
            for s in view.render_line(0)
            if s.text.strip()
        ]
        assert len(set(styles)) == 5
        await pilot.pause()


async def test_sixteen_colours_are_named(monkeypatch):
    """Where the terminal has sixteen colours the nearest of them would be grey for all levels."""
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm-16color")
    async with Texts().run_test() as pilot:
        view = pilot.app.query_one(TokenText)
        view.append([Piece("x", p) for p in (0.9, 0.5, 0.2, 0.1, 0.01)])
        names = [s.style.color.name for s in view.render_line(0) if s.text.strip()]
        assert len(set(names)) == 5
        assert all("#" not in name for name in names)


async def test_the_cursor_walks_tokens_only(view):
    view.append(TOKENS)
    view.focus()
    await view.pilot.press("home")
    assert view.cursor == 1, "the prompt is no token"
    await view.pilot.press("right", "right")
    assert view.cursor == 3
    assert "↵" in view.render_line(0).text, "a newline under the cursor is seen"
    await view.pilot.press("right")
    assert view.cursor == 5, "a token without text is passed over"
    await view.pilot.press("right")
    assert view.cursor == 5
    await view.pilot.press("up")
    assert view.cursor == 1
    await view.pilot.pause()
    assert view.pilot.app.moves == [1, 2, 3, 5, 1]


async def test_a_click_takes_the_token_under_it(view):
    view.append(TOKENS)
    await view.pilot.pause()
    await view.pilot.click(TokenText, offset=(11, 0))
    assert view.cursor == 2
    await view.pilot.click(TokenText, offset=(1, 0))
    assert view.cursor == 2, "a click on the prompt takes nothing"


async def test_the_end_is_followed_until_one_scrolls_away(view):
    view.append([Piece("line\n", 0.5) for _ in range(40)])
    await view.pilot.pause()
    assert view.scroll_y == view.max_scroll_y > 0
    view.scroll_to(y=3, animate=False, immediate=True)
    view.append([Piece("more\n", 0.5)])
    await view.pilot.pause()
    assert view.scroll_y == 3
    view.follow()
    view.append([Piece("more\n", 0.5)])
    await view.pilot.pause()
    assert view.scroll_y == view.max_scroll_y


async def test_a_narrower_window_wraps_again_and_loses_nothing(view):
    text = "the quick brown fox jumps over the lazy dog " * 5
    view.append([Piece(word + " ", 0.5) for word in text.split()])
    before = len(view.wrapped)
    view.styles.width = 15
    await view.pilot.pause()
    assert len(view.wrapped) > before
    assert "".join(view.wrapped.text) == "".join(piece.text for piece in view.pieces)


async def test_a_long_text_costs_no_more_to_extend_than_a_short_one(view):
    """Ten thousand tokens and more: each look at the deque must stay cheap. Ratios, not times."""

    def extend(times: int) -> float:
        started = time.process_time()
        for _ in range(times):
            view.append([Piece(" token", 0.5)] * 5)
            for y in range(10):
                view.render_line(y)
        return time.process_time() - started

    extend(20)
    short = min(extend(20) for _ in range(3))
    view.append([Piece(" token", 0.5)] * 30_000)
    long = min(extend(20) for _ in range(3))
    assert long < short * 3 + 0.01


async def test_the_legend_shows_every_level(view):
    legend = view.pilot.app.query_one(Legend)
    text = legend.render_line(1).text
    assert [word for word in ("≥70%", "≥40%", "≥15%", "≥5%", "<5%") if word not in text] == []
