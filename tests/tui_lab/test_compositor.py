"""Changed cells alone are sent; what the terminal shows then is what a full paint would show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pyte
import pytest
from textual.drivers.headless_driver import HeadlessDriver
from textual.events import Resize
from textual.geometry import Size

from tests.tui_lab import fakes
from tests.tui_lab.pilots import app_with_history
from tests.tui_lab.terminals import _plain
from tui_lab.app import LabApp
from tui_lab.compositor import CellsUpdate, cropped
from tui_lab.screens.dialogs import Dialog

SIZE = (100, 30)


class Recorder(HeadlessDriver):
    """A terminal that nobody sees: `sent` is what it was told."""

    is_headless = False  # type: ignore[assignment]

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self.sent = ""

    def write(self, data: str) -> None:
        self.sent += data


@asynccontextmanager
async def drawn(lab: Path, until: int) -> AsyncIterator[LabApp]:
    """An app that shows a run, drawn on a `Recorder`; nothing but the test makes it look."""
    app = app_with_history(lab, until)
    app.driver_class = Recorder
    running = asyncio.create_task(app.run_async(size=SIZE))
    while app._driver is None or not app.screen.has_class("-running"):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    app._timer.stop()
    yield app
    app.exit()
    await running


def picture(sent: str) -> list[list[tuple]]:
    """Every cell of a terminal that was told this, with its colours."""
    screen = pyte.Screen(*SIZE)
    pyte.ByteStream(screen).feed(_plain(sent.encode()))
    return [[tuple(screen.buffer[y][x])[:4] for x in range(SIZE[0])] for y in range(SIZE[1])]


async def look(app: LabApp, step: int) -> str:
    """Tell of some steps, look, and wait for the paint; what was sent for it."""
    begun = len(app._driver.sent)
    told = fakes.config()
    for number in range(step, step + 15):
        app.run_state.apply(fakes.step_done(told, number, fakes.NOON + number * 0.04))
    app._tick()
    await asyncio.sleep(0.06)
    return app._driver.sent[begun:]


async def full_paint(app: LabApp) -> str:
    begun = len(app._driver.sent)
    app.screen.refresh()
    await asyncio.sleep(0.06)
    return app._driver.sent[begun:]


async def test_changes_leave_what_a_full_paint_shows(tmp_path: Path, monkeypatch):
    """Numbers, charts, the log and marks; with a notification above them, and after it."""
    monkeypatch.setattr(
        "tui_lab.screens.train_live.CHART_SECONDS", dict.fromkeys(("loss", "rate", "norm"), 0.0)
    )
    async with drawn(tmp_path, 190) as app:
        for number in range(6):
            if number == 2:
                app.notify("above", timeout=60)
                await asyncio.sleep(0.1)
            if number == 4:
                app.clear_notifications()
                await asyncio.sleep(0.1)
                app.run_state.apply(fakes.eval_done(191, fakes.NOON + 9))
            await look(app, 191 + number * 15)
            shown = picture(app._driver.sent)
            anew = await full_paint(app)
            assert shown == picture(anew), f"look {number}"


async def test_a_look_sends_a_fraction_of_a_paint(tmp_path: Path):
    """One that did not would exceed 10 kB a second at four looks."""
    async with drawn(tmp_path, 640) as app:
        await look(app, 641)
        sent = [len((await look(app, 656 + 15 * number)).encode()) for number in range(4)]
        assert 0 < sorted(sent)[2] < 2_500
        assert max(sent) < len((await full_paint(app)).encode())


async def test_nothing_new_sends_nothing(tmp_path: Path):
    async with drawn(tmp_path, 200) as app:
        await look(app, 201)
        begun = len(app._driver.sent)
        app._tick()
        await asyncio.sleep(0.06)
        assert len(app._driver.sent) == begun


def whole(app: LabApp) -> list[list[tuple]]:
    """What Textual itself would paint now."""
    begun = len(app._driver.sent)
    screen = app.screen
    with app._context():
        below = app._background_screens
        app._display(screen, screen._compositor.render_update(full=True, screen_stack=below))
    anew = app._driver.sent[begun:]
    app._driver.sent = app._driver.sent[:begun]
    return picture(anew)


async def sent_by(app: LabApp, act: Callable[[], object]) -> int:
    """Bytes until the screen is as `act` makes it; what it shows is what Textual would paint."""
    begun = len(app._driver.sent)
    with app._context():
        act()
    known = -1
    while len(app._driver.sent) != known:
        known = len(app._driver.sent)
        await asyncio.sleep(0.3)
    sent = len(app._driver.sent[begun:].encode())
    assert visible_of(picture(app._driver.sent)) == visible_of(whole(app))
    return sent


def visible_of(cells: list[list[tuple]]) -> list[list[tuple]]:
    """The same without the colour of what is blank."""
    return [[cell if cell[0] != " " else (" ", cell[2]) for cell in row] for row in cells]


async def test_a_dialog_sends_no_more_than_what_it_covers(tmp_path: Path) -> None:
    async with drawn(tmp_path, 200) as app:
        await look(app, 201)
        everything = len((await full_paint(app)).encode())
        dialog = Dialog("Delete it?", "It is gone then.")
        assert 0 < await sent_by(app, lambda: app.push_screen(dialog)) < everything / 3
        assert 0 < await sent_by(app, app.pop_screen) < everything / 3


async def test_what_lies_below_a_dialog_shows_around_it(tmp_path: Path) -> None:
    """With something above both, another dialog, another size, and a change of what lies below."""
    async with drawn(tmp_path, 200) as app:
        below = app.screen
        await sent_by(app, app.action_help)
        await sent_by(app, lambda: app.notify("above", timeout=60))
        await sent_by(app, app.clear_notifications)
        await sent_by(app, lambda: app.push_screen(Dialog("Sure?")))
        await sent_by(app, app.pop_screen)
        await sent_by(app, lambda: below.topbar.show(("changed below", "")))
        assert any("changed below" in line for line in lines(app))
        await sent_by(app, app.action_next_theme)
        app._driver.sent = ""  # it was away, and knows nothing
        await sent_by(app, app.paint_everything)
        await sent_by(app, app.pop_screen)
        assert app.screen is below


async def test_a_dialog_over_a_screen_that_changes_its_size(tmp_path: Path) -> None:
    async with drawn(tmp_path, 200) as app:
        await sent_by(app, app.action_help)
        for size in (Size(80, 24), Size(*SIZE)):
            app._driver.sent = ""  # a terminal whose lines were broken anew
            app.post_message(Resize(size, size))
            await asyncio.sleep(0.5)
            assert visible_of(picture(app._driver.sent)) == visible_of(whole(app))
        await sent_by(app, app.pop_screen)


async def test_a_dialog_that_is_put_on_again(tmp_path: Path) -> None:
    """It is the same, and shows what it should by now: another cost of the screen, another theme,
    another size, and its first lines, however far it was scrolled."""
    async with drawn(tmp_path, 200) as app:
        await sent_by(app, app.action_help)
        dialog = app.screen
        dialog.query_one("#help").scroll_to(y=20, animate=False)
        await asyncio.sleep(0.3)
        await sent_by(app, app.pop_screen)
        await look(app, 201)
        for change in (lambda: None, app.action_next_theme, lambda: None):
            await sent_by(app, change)
            await sent_by(app, app.action_help)
            assert app.screen is dialog
            assert any("esc closes" in line for line in lines(app))
            await sent_by(app, app.pop_screen)
        small = Size(80, 24)
        app._driver.sent = ""
        app.post_message(Resize(small, small))
        await asyncio.sleep(0.5)
        await sent_by(app, app.action_help)
        assert app.screen is dialog
        assert all(node.region.right <= 80 for node in dialog.walk_children())
        await sent_by(app, app.pop_screen)


async def test_a_dialog_that_is_open_elsewhere_is_made_anew(tmp_path: Path) -> None:
    async with drawn(tmp_path, 200) as app:
        await sent_by(app, app.action_help)
        first = app.screen
        await sent_by(app, lambda: app.go("runs"))
        await sent_by(app, app.action_help)
        second = app.screen
        assert second is not first
        assert any("Mark this run" in line for line in lines(app))
        await sent_by(app, app.pop_screen)
        await sent_by(app, lambda: app.go("train"))
        assert app.screen is first
        await sent_by(app, app.pop_screen)
        await sent_by(app, app.action_help)
        assert app.screen is second
        assert not first.is_attached


def lines(app: LabApp) -> list[str]:
    return ["".join(cell[0] for cell in row) for row in picture(app._driver.sent)]


def test_colours_are_sent_when_they_change():
    from rich.console import Console
    from rich.segment import Segment
    from rich.style import Style

    red, bold = Style(color="#ff0000"), Style(bold=True)
    console = Console(color_system="truecolor", force_terminal=True)
    pieces = [
        (0, 2, 4, [Segment("ab", red)]),
        (0, 4, 6, [Segment("cd", red)]),
        (3, 0, 2, [Segment("e", red), Segment("f", bold)]),
    ]
    red_on = "\x1b[0;38;2;255;0;0m"
    assert CellsUpdate(pieces).render_segments(console) == (
        f"\x1b[1;3H{red_on}abcd\x1b[4;1He\x1b[0;1mf\x1b[0m"
    )


@pytest.mark.parametrize(
    ("start", "stop", "text"),
    [(0, 6, "ab漢cd"), (1, 3, "b "), (3, 5, " c"), (2, 4, "漢"), (5, 6, "d"), (6, 6, "")],
)
def test_a_wide_character_that_is_cut_becomes_blank(start: int, stop: int, text: str):
    from rich.segment import Segment

    line = [Segment("ab漢"), Segment("cd")]
    assert "".join(segment.text for segment in cropped(line, start, stop)) == text
