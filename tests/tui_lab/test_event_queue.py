"""A screen that stands still for an hour costs bounded memory and none of what matters."""

from __future__ import annotations

import threading

from engine import events
from tests.tui_lab import fakes
from tui_lab.event_queue import MOST, EventQueue

TOLD = fakes.config()


def test_what_is_taken_at_once_is_all_there() -> None:
    queue = EventQueue()
    said = list(fakes.history(TOLD, 500))
    for event in said:
        queue.append(event)
    assert [queue.popleft() for _ in range(len(queue))] == said


def test_a_stalled_screen_keeps_the_ends_the_changes_and_an_even_choice_of_steps() -> None:
    queue = EventQueue()
    queue.append(fakes.started(TOLD))
    last = 300_000
    for step in range(1, last + 1):
        queue.append(fakes.step_done(TOLD, step, fakes.NOON + step))
        if step % 10 == 0:
            queue.append(events.EvalProgress(step=step, done=1, total=2))
        if step % 1000 == 0:
            queue.append(fakes.eval_done(step, fakes.NOON + step))
        assert len(queue) <= MOST + 1
    queue.append(events.Finished(run="r", step=last, tokens=1, reason="completed", seconds=1.0))
    kept = [queue.popleft() for _ in range(len(queue))]
    steps = [event.step for event in kept if isinstance(event, events.StepDone)]
    assert isinstance(kept[0], events.RunStarted) and isinstance(kept[-1], events.Finished)
    assert len([event for event in kept if isinstance(event, events.EvalDone)]) == last // 1000
    assert steps == sorted(steps) and len(steps) > 1000
    assert last - steps[-1] < 100
    # Once it has been emptied every step is taken in again.
    for step in range(1, 11):
        queue.append(fakes.step_done(TOLD, step, fakes.NOON))
    assert [queue.popleft().step for _ in range(len(queue))] == list(range(1, 11))


def test_it_may_be_emptied_while_it_is_filled() -> None:
    queue = EventQueue()
    taken: list[int] = []

    def fill() -> None:
        for step in range(1, 120_001):
            queue.append(fakes.eval_done(step, fakes.NOON))

    thread = threading.Thread(target=fill)
    thread.start()
    while thread.is_alive() or queue:
        if queue:
            taken.append(queue.popleft().step)
    assert taken == sorted(taken) and len(set(taken)) == len(taken)
