"""A slow link: asked for or found out, seen on the screen, and taken back by a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui_lab.pilots import app_with_history, shown, until
from tui_lab.link import BYTES_PER_SECOND, SLOW_BYTES_PER_SECOND, choice
from tui_lab.settings import Settings


@pytest.mark.parametrize(
    ("told", "setting", "chosen"),
    [
        (None, "auto", "auto"),
        (None, "always", "always"),
        (None, "sometimes", "auto"),
        ("1", "never", "always"),
        ("ON", "auto", "always"),
        ("0", "always", "never"),
        ("auto", "always", "auto"),
        ("", "never", "never"),
    ],
)
def test_the_environment_overrides_the_setting(
    told: str | None, setting: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUI_LAB_SLOW_LINK", raising=False)
    if told is not None:
        monkeypatch.setenv("TUI_LAB_SLOW_LINK", told)
    assert choice(setting) == chosen


async def test_the_key_goes_there_and_back(tmp_path: Path) -> None:
    app = app_with_history(tmp_path, 400)
    moved = app.animation_level
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "raw" in shown(app))
        await pilot.press("f4")
        await until(pilot, lambda: "slow link" in shown(app).splitlines()[0])
        assert app.pace.interval() >= 1.0 and app.pace.link == SLOW_BYTES_PER_SECOND
        assert app.animation_level == "none"
        await until(pilot, lambda: "raw" not in shown(app))
        await pilot.press("f4")
        await until(pilot, lambda: "raw" in shown(app), 10)
        assert "slow link" not in shown(app)
        assert app.pace.link == BYTES_PER_SECOND and app.animation_level == moved


async def test_a_terminal_found_slow_is_told_of_once_and_can_be_overruled(tmp_path: Path) -> None:
    app = app_with_history(tmp_path, 100)
    async with app.run_test(size=(120, 36)) as pilot:
        app.link_is_slow()
        await until(pilot, lambda: "slow link" in shown(app))
        assert [told.title for told in app._notifications] == ["The terminal is slow"]
        assert app.slow_link
        await pilot.press("f4")
        app.link_is_slow()
        assert not app.slow_link


@pytest.mark.parametrize("setting", ["always", "never"])
async def test_what_was_asked_for_stays(tmp_path: Path, setting: str) -> None:
    app = app_with_history(tmp_path, 100, settings=Settings(slow_link=setting))
    async with app.run_test(size=(120, 36)):
        app.link_is_slow()
        assert app.slow_link is (setting == "always")
        assert not app._notifications
