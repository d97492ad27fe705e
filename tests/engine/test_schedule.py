"""The learning rate's shape: where it starts, peaks and ends, for every kind."""

from __future__ import annotations

import pytest

from engine.config.sections import ScheduleConfig
from engine.schedule import curve, fall_start, learning_rate

KINDS = ("cosine", "linear", "constant", "wsd")
LR, TOTAL = 1e-3, 1000


def plan(kind: str, **values: float) -> ScheduleConfig:
    return ScheduleConfig(kind=kind, **{"warmup_steps": 100, "min_lr": 1e-4} | values)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_rises_evenly_from_above_zero_to_the_peak(kind: str) -> None:
    """A first step at rate 0 would be wasted."""
    rates = [learning_rate(step, plan(kind), LR, TOTAL) for step in range(102)]
    assert rates[0] == pytest.approx(LR / 101)
    assert rates[49] == pytest.approx(LR * 50 / 101)
    assert rates[100] == pytest.approx(LR)
    assert rates[:101] == sorted(rates[:101])


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_falling_kinds_reach_the_floor_at_the_last_step(kind: str) -> None:
    assert learning_rate(TOTAL - 2, plan(kind), LR, TOTAL) > 1e-4
    assert learning_rate(TOTAL - 1, plan(kind), LR, TOTAL) == pytest.approx(1e-4)
    assert learning_rate(TOTAL + 50, plan(kind), LR, TOTAL) == pytest.approx(1e-4)


def test_values_in_the_middle() -> None:
    """Cosine halves the way in the middle of the fall, linear too; a quarter tells them apart."""
    middle, quarter = 100 + 899 / 2, 100 + 899 // 4
    for kind, at_quarter in (("cosine", 8.68e-4), ("linear", 7.75e-4)):
        assert learning_rate(middle, plan(kind), LR, TOTAL) == pytest.approx(5.5e-4)
        assert learning_rate(quarter, plan(kind), LR, TOTAL) == pytest.approx(at_quarter, rel=2e-3)


def test_constant_stays() -> None:
    assert {learning_rate(step, plan("constant"), LR, TOTAL) for step in (100, 500, 999)} == {LR}


def test_wsd_holds_then_falls() -> None:
    schedule = plan("wsd", decay_fraction=0.2)
    assert fall_start(schedule, TOTAL) == 800
    assert learning_rate(800, schedule, LR, TOTAL) == LR
    assert learning_rate(801, schedule, LR, TOTAL) < LR
    rates = [learning_rate(step, schedule, LR, TOTAL) for step in range(800, 1000)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_never_lifts_the_rate_above_the_peak(kind: str) -> None:
    """min_lr 1e-2 with lr 1e-3 would otherwise make the rate rise tenfold at the end."""
    rates = curve(plan(kind, min_lr=1e-2), LR, TOTAL)[1]
    assert max(rates) <= LR


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("total", [1, 2, 50, 100, 101])
def test_a_run_no_longer_than_the_warm_up(kind: str, total: int) -> None:
    """Nothing divides by zero, and nothing leaves [0, lr]."""
    rates = [learning_rate(step, plan(kind), LR, total) for step in range(total)]
    assert all(0 < rate <= LR for rate in rates)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, plan("cosine", warmup_steps=0), LR, TOTAL) == LR


def test_curve_keeps_the_corners_when_coarse() -> None:
    """Eight points of a long run would miss the peak of a short warm-up."""
    steps, rates = curve(plan("wsd"), LR, 100_000, points=8)
    assert {0, 100, 80_000, 99_999} <= set(steps)
    assert max(rates) == LR
    assert len(steps) <= 12
    assert steps == sorted(steps)
    assert curve(plan("cosine"), LR, 0) == ([], [])
