"""Choosing what the console talks to: a dialog that is kept, and asks anew each time."""

from __future__ import annotations

import threading

import pytest
from textual.events import Key

from engine.lab import Lab
from tests.tui_lab.console_fakes import SOURCES, FakeGenerator
from tests.tui_lab.screens.test_console import make_app, settled, until
from tui_lab.widgets.choice_list import ChoiceList


@pytest.fixture
async def pilot(lab: Lab):
    app = make_app(lab, FakeGenerator())
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        yield pilot


async def test_choosing_a_checkpoint_by_typing(pilot):
    await pilot.press("ctrl+o")
    await pilot.pause()
    await until(pilot, lambda: len(pilot.app.screen._sources) == 3)
    await pilot.press(*"hello")
    await pilot.press("enter")
    await pilot.pause()
    assert pilot.app.screen.source == SOURCES[2]


async def test_choosing_again_asks_again(pilot):
    """The dialog is kept, but nothing that it showed before can be taken: not what was filtered,
    nor a checkpoint that is gone, nor anything before the answer is there."""
    app = pilot.app
    await pilot.press("ctrl+o")
    dialog = app.screen
    await until(pilot, lambda: len(dialog._sources) == 3)
    await pilot.press(*"hello", "escape")
    await pilot.pause()
    assert app.screen is not dialog

    answered = threading.Event()
    screen = app.screen
    real = screen._list
    screen._list = lambda lab: (answered.wait(20), list(SOURCES[:2]))[1]
    await pilot.press("ctrl+o")
    await pilot.pause()
    assert app.screen is dialog
    await pilot.press("enter", "down")
    await pilot.pause()
    assert app.screen is dialog, "nothing to take yet"
    answered.set()
    await until(pilot, lambda: len(dialog._shown) == 2)
    assert dialog.query_one(ChoiceList).option_count == 2
    await pilot.press("down", "enter")
    await pilot.pause()
    assert screen.source == SOURCES[1]
    screen._list = real


async def test_a_late_answer_to_an_earlier_question_is_not_shown(pilot):
    app, screen = pilot.app, pilot.app.screen
    late = threading.Event()
    screen._list = lambda lab: (late.wait(20), [])[1]
    await pilot.press("ctrl+o")
    dialog = app.screen
    await pilot.press("escape")
    await pilot.pause()
    screen._list = lambda lab: list(SOURCES)
    await pilot.press("ctrl+o")
    await until(pilot, lambda: len(dialog._shown) == 3)
    late.set()
    await pilot.pause(0.2)
    assert len(dialog._shown) == 3


async def test_two_presses_in_one_read_open_one_dialog(pilot):
    """As over a slow link. The second is for the dialog, which has no use for it."""
    app = pilot.app
    for _ in range(2):
        app.post_message(Key("ctrl+o", None))
    await until(pilot, lambda: len(app.screen_stack) > 1 and len(app.screen._sources) == 3)
    await pilot.pause()
    assert len(app.screen_stack) == 2
    await pilot.press("escape")
    await pilot.pause()
    assert len(app.screen_stack) == 1
