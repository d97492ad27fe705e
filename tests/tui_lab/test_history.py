"""The past of a run that goes on here, from its files: what happened before, and no more."""

from __future__ import annotations

from pathlib import Path

from engine.run_writer import RunWriter
from tests.engine.test_run_writer import Folder, evaluated, started, step
from tui_lab.history import past_of
from tui_lab.state import RunState


def test_the_past_ends_where_the_run_was_resumed_and_is_joined_to_the_present(tmp_path: Path):
    writer = RunWriter(Folder(tmp_path))
    for event in (started(), *map(step, range(1, 31)), evaluated(10, 1.0), evaluated(30, 0.5)):
        writer(event)
    writer.close()
    run = RunState()
    present = [started(20, resumed=True), step(21, loss=9.0), step(22), evaluated(22, 1.5)]
    writer = RunWriter(Folder(tmp_path))
    for event in present:
        writer(event)
        run.apply(event)
    writer.close()
    run.path = str(tmp_path)
    run.preload(past_of(run))
    assert list(run.series.step) == list(range(1, 23)) and run.series.loss[20] == 9.0
    assert run.validation == [(10, 1.0), (22, 1.5)]
    assert run.best.step == 10, "the loss of step 30 was never reached by this run"
    assert run.step == 22
