"""The file that says what the screen costs: read back as it was written, or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tui_lab import screen_cost
from tui_lab.screen_cost import MAX_BYTES, ScreenCost

COST = ScreenCost(1, "m", 2.0, 3.0, 4, 5.0, 0.006, 4.0, 120, 36, False)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_the_last() -> None:
    assert screen_cost.last() is None
    screen_cost.keep(COST)
    screen_cost.keep(replace(COST, slow_link=True))
    assert screen_cost.last() == replace(COST, slow_link=True)


def test_a_place_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("")
    screen_cost.keep(COST)
    assert screen_cost.last() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "[" * 4000,
        json.dumps(asdict(COST) | {"pid": "1"}),
        json.dumps(asdict(COST) | {"bytes": True}),
        json.dumps(asdict(COST)).replace("0.006", "NaN"),
        json.dumps({key: value for key, value in asdict(COST).items() if key != "share"}),
        json.dumps(asdict(COST) | {"mark": "x" * MAX_BYTES}),
    ],
)
def test_a_wrong_file_tells_nothing(text: str) -> None:
    screen_cost.keep(COST)
    screen_cost.path().write_text(text)
    assert screen_cost.last() is None
