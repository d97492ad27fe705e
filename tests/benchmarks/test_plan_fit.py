"""The fit finds constants that are there, and the ten it is judged by are not among its own."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks import plan_accuracy, plan_fit, trials
from engine.step_time import NAMES, find_pace


def row(amounts: dict[str, float], paces: dict[str, float]) -> dict[str, Any]:
    seconds = sum(amounts[name] * paces[name] for name in NAMES)
    return {
        "compiled": False,
        "amounts": amounts,
        "measured": {"precision": "bfloat16", "step_seconds": seconds},
    }


def test_the_fit_finds_what_the_steps_were_made_of() -> None:
    """Steps of known constants, one of them zero; the prior must not hold on to its own."""
    drawn = random.Random(1)
    before = find_pace("cpu", False, "bfloat16")
    true = {name: getattr(before, name) * drawn.choice((0.5, 1.6)) for name in NAMES}
    true["passes"] = 0.0
    rows = [
        row({name: drawn.random() ** 4 / (getattr(before, name) or 1.0) for name in NAMES}, true)
        for _ in range(60)
    ]
    found = plan_fit.fit(rows)
    assert all(value >= 0 for value in found.values())
    for one in rows:
        reckoned = sum(one["amounts"][name] * found[name] for name in NAMES)
        assert reckoned == pytest.approx(one["measured"]["step_seconds"], rel=0.05)
    assert found["products"] == pytest.approx(true["products"], rel=0.1)


def test_the_ten_are_new_to_the_plan() -> None:
    fitted = [(about["vocabulary"], about["values"]) for about in plan_fit.SHAPES]
    judged = [(about["vocabulary"], about["values"]) for about in plan_accuracy.SHAPES]
    assert len(judged) == 10
    assert not [about for about in judged if about in fitted]


def test_the_summary_counts_what_is_within_the_limits() -> None:
    rows = [
        {"time_error": 0.1, "memory_error": -0.05},
        {"time_error": -0.2, "memory_error": 0.09},
        {"time_error": 0.15, "memory_error": 0.11},
    ]
    told = plan_accuracy.summary(rows)
    assert (told["time"]["within"], told["memory"]["within"]) == (2, 2)
    assert told["time"]["largest"] == 0.2


def test_of_several_runs_the_median_counts_whole() -> None:
    """Its time and its memory: not those of two runs."""
    runs = [
        {"name": "a", "measured": {"step_seconds": seconds, "peak_memory": memory}}
        for seconds, memory in ((0.3, 1), (0.1, 2), (0.2, 3))
    ]
    found = trials.median_run(runs)
    assert found["measured"] == {"step_seconds": 0.2, "peak_memory": 3}
    assert found["step_seconds_of_rounds"] == [0.3, 0.1, 0.2]
