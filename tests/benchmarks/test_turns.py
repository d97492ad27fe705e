"""Programs that work in turn: who is stopped does nothing, and does not count."""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import pytest

from benchmarks.turns import Side, take_turns

TELLING = """
import json, time
for _ in range({count}):
    time.sleep(0.02)
    print(json.dumps({{"time": time.time()}}), flush=True)
{end}
"""


def telling(name: str, count: int, end: str = "") -> Side:
    return Side(name, [sys.executable, "-c", TELLING.format(count=count, end=end)])


def test_one_works_while_the_other_is_stopped_and_only_that_counts() -> None:
    sides = [telling("long", 80), telling("short", 40)]
    told: dict[Side, list[float]] = {side: [] for side in sides}
    began = time.time()
    for side, record in take_turns(sides, 0.3):
        told[side].append(record["time"])
    ended = time.time()
    assert [len(told[side]) for side in sides] == [80, 40]
    assert all(side.ended for side in sides)
    # Each in several turns, and nothing told by one lies in a turn of the other.
    order = sorted((moment, side.name) for side in sides for moment in told[side])
    turns = [name for name, _ in itertools.groupby(name for _, name in order)]
    assert turns[:3] in (["long", "short", "long"], ["short", "long", "short"])
    assert len(turns) >= 4
    worked = [side.worked(began, ended) for side in sides]
    assert sum(worked) == pytest.approx(ended - began, abs=0.3)
    assert worked[0] > 80 * 0.02 and worked[1] > 40 * 0.02
    # A stretch across a turn of the other is as long as what was worked of it.
    across = max(itertools.pairwise(told[sides[0]]), key=lambda stretch: stretch[1] - stretch[0])
    assert sides[0].worked(*across) < across[1] - across[0] - 0.25


def test_one_that_fails_ends_them_all_with_its_last_words() -> None:
    failing = telling("failing", 2, "raise SystemExit('no more')")
    waiting = telling("waiting", 10_000)
    seen: list[Any] = []
    with pytest.raises(RuntimeError, match=r"failing failed:\nno more"):
        seen.extend(take_turns([waiting, failing], 0.5))
    assert any(side is waiting for side, _ in seen)
    assert waiting.ended
