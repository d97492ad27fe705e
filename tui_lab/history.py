"""The past of a run as events, from its own files. Blocking reads: call it off the app's thread."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.events import CheckpointSaved, ControlApplied, EvalDone, Event, StepDone, from_record
from engine.metrics import JsonlTail, read_events

KINDS = ("eval_done", "checkpoint_saved", "control_applied")


def past_events(run_path: Path) -> list[Event]:
    """What a chart shows of the run so far: steps, evaluations, checkpoints, changes."""
    records = [*JsonlTail(run_path / "metrics.jsonl").poll(), *read_events(run_path, KINDS)]
    return sorted(_events(records), key=lambda event: event.step)


def _events(
    records: Iterable[dict[str, Any]],
) -> Iterable[StepDone | EvalDone | CheckpointSaved | ControlApplied]:
    for record in records:
        with suppress(TypeError):  # a line of another version, or a broken one
            event = from_record(record)
            if isinstance(event, StepDone | EvalDone | CheckpointSaved | ControlApplied):
                yield event
