"""The engine's vocabulary: events survive their files, and commands reach the trainer."""

from __future__ import annotations

import json
import threading
from dataclasses import fields

import pytest

from engine import control, events

SCALARS = {
    "str": "text",
    "int": 3,
    "float": 1.5,
    "bool": True,
    "float | None": 0.5,
    "int | None": 7,
    "tuple[tuple[str, float], ...]": (("a", 0.5),),
    "tuple[int, ...]": (1, 2),
}


@pytest.mark.parametrize("kind", events.Event.kinds.values(), ids=lambda kind: kind.name)
def test_every_event_survives_its_json_line(kind: type[events.Event]) -> None:
    event = kind(**{f.name: SCALARS[str(f.type)] for f in fields(kind)})
    back = events.from_record(json.loads(events.to_json(event)))
    assert events.to_json(back) == events.to_json(event)
    assert type(back) is kind


def test_a_step_is_written_with_the_metric_names_alone() -> None:
    step = events.StepDone(
        step=1, tokens=2, loss=3.0, lr=4.0, grad_norm=5.0, tokens_per_second=6.0, mfu=0.5,
        memory_bytes=8,
    )  # fmt: skip
    record = events.to_record(step)
    assert "event" not in record and "val_loss" not in record
    names = {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "mfu"}
    assert names | {"memory_bytes", "time"} <= set(record)


def test_unknown_events_and_fields_of_a_newer_version_are_passed_over() -> None:
    assert events.from_record({"event": "teleported", "to": "mars"}) is None
    paused = events.from_record({"event": "paused", "step": 4, "mood": "calm", "time": 1.0})
    assert paused == events.Paused(step=4, time=1.0)


def test_the_inbox_keeps_order_across_threads_and_wakes_who_waits() -> None:
    inbox = control.Inbox()
    threading.Timer(0.05, inbox.put, [control.Pause(), "app"]).start()
    assert inbox.wait(5.0)
    inbox.put(control.Stop(), "signal")
    assert inbox.holds(control.Stop) and not inbox.holds(control.Resume)
    assert inbox.take() == [(control.Pause(), "app"), (control.Stop(), "signal")]
    assert inbox.take() == [] and not inbox.holds(control.Stop) and not inbox.wait(0)


def test_a_cancelled_sample_is_known_by_its_request_alone() -> None:
    inbox = control.Inbox()
    inbox.put(control.CancelSample("a"))
    assert inbox.is_cancelled("a") and not inbox.is_cancelled("b") and inbox.take() == []
