"""What a mixture's routers did, where people look: the Train screen's numbers, the plain lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.events import StepDone
from engine.follow import event_of
from tests.tui_lab import fakes
from tui_lab.progress import step_line
from tui_lab.screens.train_view import numbers
from tui_lab.state import RunState

RECORD = {"router_balance": 2.1, "expert_busiest": 1.4, "expert_idlest": 0.6, "router_entropy": 1.9}


def routed() -> StepDone:
    return replace(fakes.step_done(fakes.config(), 5, 1.0), **RECORD)


def shown(step: StepDone, width: int) -> str:
    run = RunState(fakes.config())
    run.apply(step)
    rows = numbers(run, 30, width, True)
    return "\n".join(" ".join([row[0], *(text for text, _ in row[1:])]) for row in rows)


@pytest.mark.parametrize("width", [24, 32, 60])
def test_the_numbers_tell_the_busiest_and_the_idlest(width: int) -> None:
    text = shown(routed(), width)
    assert "experts busiest 1.4x" in text
    assert "idlest 0.6x" in text


def test_a_dense_run_says_nothing_of_experts() -> None:
    dense = fakes.step_done(fakes.config(), 5, 1.0)
    assert "experts" not in shown(dense, 40)
    assert "experts" not in step_line(dense, 10, 1.0)


def test_a_plain_line_tells_both_loads() -> None:
    assert "  experts 0.6x-1.4x  " in step_line(routed(), 10, 1.0)


@pytest.mark.parametrize("bad", ["1", None, [1], True, {}])
def test_a_line_with_a_wrong_number_is_a_step_without_routers(bad: object) -> None:
    """A file is believed no further than its types; the loss of that step is still good."""
    step = routed()
    line = {name: value for name, value in vars(step).items() if value is not None}
    assert event_of(line) == step
    assert event_of(line | {"expert_idlest": bad}) == replace(step, **dict.fromkeys(RECORD))
