"""A run of any length in bounded memory, of which a chart shows what all the points would."""

from __future__ import annotations

import math
import random

import pytest

from tui_lab import series_store
from tui_lab.series_store import METRICS, MOST, RAW, Series


def fill(series: Series, first: int, last: int, spikes: dict[int, float] | None = None) -> None:
    noise = random.Random(first)
    for step in range(first, last + 1):
        loss = (spikes or {}).get(step, 2.0 + noise.random())
        series.add(step, loss, 1e-3 + step * 1e-9, noise.random(), 1000.0, 50)


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch):
    """A series that keeps everything, as the measure of the bounded one."""

    def make(last: int, **values) -> Series:
        with monkeypatch.context() as patch:
            patch.setattr(series_store, "MOST", 10**9)
            series = Series()
            fill(series, 1, last, **values)
        return series

    return make


def test_a_run_that_fits_is_kept_point_by_point(unbounded) -> None:
    series = Series()
    fill(series, 1, MOST - 1)
    whole = unbounded(MOST - 1)
    for name in ("step", *METRICS):
        assert getattr(series, name) == getattr(whole, name)


def test_a_long_run_is_bounded_and_keeps_every_extreme_and_its_newest_points(unbounded) -> None:
    spikes = {777: 40.0, 50_000: -3.0, 99_000: 41.0}
    series = Series()
    fill(series, 1, 120_000, spikes)
    whole = unbounded(120_000, spikes=spikes)
    assert RAW <= len(series) < MOST
    assert {40.0, -3.0, 41.0} <= set(series.loss)
    assert list(series.step) == sorted(set(series.step))
    for name in ("step", *METRICS):
        kept, all_of_it = getattr(series, name), getattr(whole, name)
        assert kept[-RAW:] == all_of_it[-RAW:], "the newest points are as they were logged"
        assert min(kept) == min(all_of_it) and max(kept) == max(all_of_it)
    assert series.average == whole.average, "averages are taken before anything is merged"


def test_the_whole_run_is_shown_equally_fine() -> None:
    """The first tenth has as many points as the fifth: nothing is thinned again and again."""
    series = Series()
    fill(series, 1, 200_000)
    counts = [sum(low < step <= low + 20_000 for step in series.step) for low in (0, 80_000)]
    assert counts[0] > 500
    assert 0.45 < counts[0] / counts[1] < 2.2


def test_a_gap_stays_a_gap() -> None:
    series = Series()
    fill(series, 1, 60_000, dict.fromkeys(range(20000, 22000), math.nan))
    inside = [v for s, v in zip(series.step, series.loss, strict=True) if 20_100 < s < 21_900]
    assert inside and all(math.isnan(value) for value in inside)
    assert all(math.isfinite(value) for value in series.loss[-RAW:])


def test_nothing_but_gaps_is_bounded_too() -> None:
    """Every other point a NaN: each group needs a third point, and the bound holds all the same."""
    series = Series()
    fill(series, 1, 60_000, dict.fromkeys(range(1, 60001, 2), math.nan))
    assert len(series) <= MOST


def test_a_run_that_went_back_forgets_the_steps_that_never_were() -> None:
    series = Series()
    fill(series, 1, 40_000)
    fill(series, 10_001, 10_010)
    assert series.step[-1] == 10_010
    assert list(series.step) == sorted(set(series.step))
    assert math.isfinite(series.average or math.nan)
    series.drop_from(0)
    assert len(series) == 0 and series.average is None
    fill(series, 1, 40_000)
    assert len(series) < MOST
