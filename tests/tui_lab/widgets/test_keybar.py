"""The footer: what matters most is there at 80 columns, and it says where the rest is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui_lab.pilots import app_with_history, shown, until


async def footer(lab: Path, width: int) -> str:
    app = app_with_history(lab, 100)
    async with app.run_test(size=(width, 30)) as pilot:
        await until(pilot, lambda: "space pause" in shown(app))
        return shown(app).splitlines()[-1]


async def test_a_narrow_footer_keeps_the_main_keys(tmp_path: Path) -> None:
    line = await footer(tmp_path, 80)
    for told in ("space pause", "s save", "x stop", "? more", "q quit"):
        assert told in line
    assert "n new run" not in line
    assert line.index("space pause") < line.index("s save") < line.index("x stop")


@pytest.mark.parametrize("width", [120, 200])
async def test_with_room_for_all_nothing_is_more(tmp_path: Path, width: int) -> None:
    line = await footer(tmp_path, width)
    assert "n new run" in line and "? help" in line
