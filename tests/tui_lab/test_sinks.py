"""What Textual draws and prints by itself is as safe as what we tell our own widgets."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.color import Color
from textual.widgets import Static

from engine.errors import EngineError
from engine.text import INVISIBLE, is_safe
from tests.tui_lab.pilots import make_app, shown, until
from tui_lab.sinks import Sieve, Sinks
from tui_lab.widgets.prompt import PromptArea
from tui_lab.widgets.text_field import TextField

HOSTILE = "a\x1b]0;title\x07b\x9b31mc\u202ed[bold]e"
SEEN = "a␛]0;title␇b\ufffd31mc\ufffdd[bold]e"


@pytest.mark.parametrize(
    "text", ["plain", HOSTILE, "語\x1b語", "\ud800x", "e\u0301\u200b", "\x07", "👩\u200d👩\x00"]
)
def test_the_sieve_mends_what_was_forgotten_and_keeps_the_width(text: str):
    sieve, segments = Sieve(), [Segment("before "), Segment(text), Segment(" after")]
    mended = sieve.apply(segments, Color(0, 0, 0))
    assert all(is_safe(segment.text) for segment in mended)
    before, after = ("".join(s.text for s in some) for some in (segments, mended))
    assert cell_len(after) == cell_len(before)
    assert sieve.caught == (not is_safe(text))


async def test_a_widget_that_forgets_is_caught():
    class Careless(Sinks, App[None]):
        def compose(self) -> ComposeResult:
            yield Static("x\x1b\u202e\x9by", markup=False)

    app = Careless()
    async with app.run_test() as pilot:
        await pilot.pause()
        assert is_safe(shown(app).replace("\n", ""))
        assert app.sieve.caught


async def test_a_field_holds_what_it_shows():
    class Form(App[None]):
        def compose(self) -> ComposeResult:
            yield TextField(HOSTILE)
            yield PromptArea(HOSTILE + "\nsecond\r\nthird")

    async with Form().run_test() as pilot:
        field, prompt = pilot.app.query_one(TextField), pilot.app.query_one(PromptArea)
        assert field.value == SEEN
        assert prompt.text == f"{SEEN}\nsecond\nthird"
        field.value = "one\ntwo\u200b"
        assert field.value == f"one␊two{INVISIBLE}"
        prompt.insert("\x1b[1m", (0, 0))
        assert prompt.text.startswith("␛[1ma")


async def test_a_line_without_end_is_taken_in_part():
    """A megabyte on one line, pasted or in a name, must not freeze whoever lays it out."""

    class Form(App[None]):
        def compose(self) -> ComposeResult:
            yield TextField()
            yield PromptArea()

    async with Form().run_test() as pilot:
        field, prompt = pilot.app.query_one(TextField), pilot.app.query_one(PromptArea)
        field.value = "x" * 1_000_000
        prompt.insert("y" * 1_000_000)
        await pilot.pause()
        assert len(field.value) <= 10_000 and len(prompt.text) <= 200_000


async def test_a_notification_is_text_and_not_markup(tmp_path):
    app = make_app(tmp_path)
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        app.show_error(EngineError(HOSTILE, "[/] [@click=app.quit]" + "z" * 5_000))
        await until(pilot, lambda: SEEN in shown(app))
        assert "[@click=app.quit]zz" in shown(app)
        assert app.sieve.caught == 0, "it was made visible before it was drawn"


async def test_a_crash_is_reported_without_what_it_quotes(tmp_path, capsys):
    """Textual prints a traceback, with the exception's words as they are."""
    app = make_app(tmp_path)

    def fail() -> None:
        raise ValueError(HOSTILE)

    with pytest.raises(ValueError):
        async with app.run_test() as pilot:
            app.call_later(fail)
            await pilot.pause(0.2)
    app._print_error_renderables()
    printed = capsys.readouterr().err
    assert "ValueError" in printed and "␛]0;title" in printed
    assert all(is_safe(line) for line in printed.split("\n"))
