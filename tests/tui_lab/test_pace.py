"""The screen's own cost: measured, and paid for with patience."""

from __future__ import annotations

import pytest

from tui_lab import pace
from tui_lab.pace import Pace


@pytest.fixture
def clocks(monkeypatch):
    now = {"cpu": 0.0, "wall": 0.0}
    monkeypatch.setattr(pace.time, "thread_time", lambda: now["cpu"])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now["wall"])
    return now


def run(p: Pace, clocks, share: float, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        clocks["wall"] += 0.25
        clocks["cpu"] += 0.25 * share
        p.measure()


def test_the_share_is_of_the_last_seconds(clocks):
    p = Pace(4.0, 0.03)
    run(p, clocks, 0.5, 10)
    run(p, clocks, 0.01, 10)
    assert p.share == pytest.approx(0.01, rel=0.2)


def test_above_its_budget_the_screen_looks_less_often_and_recovers(clocks):
    p = Pace(4.0, 0.03)
    run(p, clocks, 0.02, 10)
    assert p.interval() == 0.25
    run(p, clocks, 0.06, 10)
    assert p.interval() == pytest.approx(0.5, rel=0.1)
    run(p, clocks, 1.0, 10)
    assert p.interval() == 2.0
    run(p, clocks, 0.0, 10)
    assert p.interval() == 0.25
