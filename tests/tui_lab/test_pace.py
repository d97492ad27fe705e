"""The screen's own cost: measured, and paid for with patience."""

from __future__ import annotations

import pytest

from tui_lab import pace
from tui_lab.pace import Pace


@pytest.fixture
def clocks(monkeypatch):
    now = {"cpu": 0.0, "wall": 0.0, "drawn": 0}
    monkeypatch.setattr(pace.time, "thread_time", lambda: now["cpu"])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now["wall"])
    return now


def run(p: Pace, clocks, cost: float, seconds: float, drawn: int = 0) -> list[float]:
    """Look as the pace says for some seconds, each time for `cost` seconds of a core and `drawn`
    bytes; the intervals that it said."""
    said, end = [], clocks["wall"] + seconds
    while clocks["wall"] < end:
        said.append(p.interval())
        clocks["wall"] += said[-1]
        clocks["cpu"] += cost
        clocks["drawn"] += drawn
        p.measure(clocks["drawn"])
    return said


def test_the_figures_are_of_the_last_seconds(clocks):
    p = Pace(4.0, 1.0, 1e9)
    run(p, clocks, 0.1, 10, drawn=1000)
    assert p.share == pytest.approx(0.4, rel=0.1)
    assert p.bytes_per_second == pytest.approx(4000, rel=0.1)
    run(p, clocks, 0.001, 10)
    assert p.share == pytest.approx(0.004, rel=0.2) and p.bytes_per_second == 0


@pytest.mark.parametrize(
    ("cost", "budget"), [(0.001, 0.03), (0.012, 0.03), (0.04, 0.03), (0.04, 0.01)]
)
def test_no_look_costs_more_than_the_budget_in_the_long_run(clocks, cost: float, budget: float):
    """And the pace settles: it does not swing between too often and too rarely. The last is what a
    look costs a slow machine, and the share that it may have."""
    p = Pace(4.0, budget, 1e9)
    run(p, clocks, cost, 40)
    said = run(p, clocks, cost, 40)
    assert max(said) - min(said) < 0.02 * max(said)
    assert cost / said[-1] <= budget * 1.01
    assert said[-1] == pytest.approx(max(0.25, cost / budget))


def test_the_terminal_has_a_budget_of_its_own(clocks):
    p = Pace(4.0, 0.03, 10_000)
    said = run(p, clocks, 0.001, 20, drawn=5000)
    assert said[-1] == pytest.approx(0.5)


def test_a_free_core_pays_for_more(clocks):
    p = Pace(4.0, 0.03, 1e9)
    p.spare = True
    assert run(p, clocks, 0.020, 20)[-1] == pytest.approx(0.25)
    p.spare = False
    assert p.interval() == pytest.approx(0.02 / 0.03)


def test_the_screen_never_seems_dead_and_recovers(clocks):
    p = Pace(4.0, 0.03, 1e9)
    assert run(p, clocks, 5.0, 20)[-1] == 4.0
    assert run(p, clocks, 0.001, 20)[-1] == 0.25


def test_who_pressed_a_key_sees_at_once_what_it_does(clocks):
    """And pays for it afterwards."""
    p = Pace(4.0, 0.01, 1e9)
    assert run(p, clocks, 0.010, 20)[-1] == pytest.approx(1.0)
    p.watched()
    assert p.interval() == pytest.approx(0.25)
    said = run(p, clocks, 0.010, 10)
    assert said[0] == pytest.approx(0.25) and said[-1] >= 1.0
