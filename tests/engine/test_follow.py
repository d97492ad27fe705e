"""A run told from its files: in order, in portions, whatever the files hold."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events, follow
from engine.follow import Follower, event_of
from engine.run_writer import RunWriter
from engine.status import Status, write_status
from tests.engine.test_run_writer import Folder, evaluated, finished, started, step
from tui_lab.state import RunState


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "r"
    path.mkdir()
    return Folder(path)


def told_by(folder: Folder, *said: events.Event) -> RunWriter:
    writer = RunWriter(folder)
    for event in said:
        writer(event)
    writer.flush()
    return writer


def all_of(follower: Follower) -> list[events.Event]:
    found = follower.poll()
    while not follower.caught_up:
        found += follower.poll()
    return found


def lasting(found: list[events.Event]) -> list[events.Event]:
    """Without the figures of the moment."""
    return [event for event in found if not isinstance(event, events.Phase | events.DeviceStats)]


def steps_of(found: list[events.Event]) -> list[int]:
    return [event.step for event in found if isinstance(event, events.StepDone)]


def test_both_files_come_as_one_story_and_each_event_once(folder: Folder) -> None:
    said = [started(), step(1), step(2), evaluated(2, 1.5), step(3)]
    writer = told_by(folder, *said)
    follower = Follower(folder.path)
    first = lasting(all_of(follower))
    assert [type(event) for event in first] == [type(event) for event in said]
    assert first[1:] == said[1:]
    assert (first[0].run, first[0].path) == ("r", str(folder.path)), "wherever it was told"
    assert follower.alive and lasting(all_of(follower)) == []
    for event in (step(4), finished()):
        writer(event)
    writer.close()
    rest = lasting(all_of(follower))
    assert steps_of(rest) == [4] and isinstance(rest[-1], events.Finished)
    assert not follower.alive and lasting(all_of(follower)) == []


def test_figures_of_the_moment_come_from_the_status(folder: Folder) -> None:
    told_by(folder, started(), step(1))
    write_status(
        folder.path,
        Status(
            **vars(follow.read_status(folder.path))
            | {"phase": "evaluating", "phase_done": 3, "phase_total": 8, "used_bytes": 77}
        ),
        durable=False,
    )
    follower = Follower(folder.path)
    run = RunState()
    for event in all_of(follower):
        run.apply(event)
    assert (run.phase, run.done, run.total, run.device.used) == ("evaluating", 3, 8, 77)


@pytest.mark.parametrize(
    ("changed", "phase", "alive"),
    [
        ({"moved": 0.001, "phase": "training", "step_seconds": 0.1}, "stalled", True),
        ({"host": "elsewhere", "updated": 1.0}, "silent", False),
    ],
)
def test_a_run_that_is_not_heard_of_is_shown_so_and_has_not_ended(folder, changed, phase, alive):
    told_by(folder, started(), step(1))
    status = vars(follow.read_status(folder.path)) | changed
    (folder.path / "status.json").write_text(json.dumps(status))
    follower, run = Follower(folder.path), RunState()
    for event in all_of(follower):
        run.apply(event)
    assert (run.phase, follower.alive, run.live) == (phase, alive, True)


def test_a_torn_line_waits_for_its_end(folder: Folder) -> None:
    told_by(folder, started(), step(1))
    line = events.to_json(step(2)).encode() + b"\n"
    follower = Follower(folder.path)
    with open(folder.path / "metrics.jsonl", "ab", buffering=0) as file:
        file.write(line[:20])
        assert steps_of(all_of(follower)) == [1]
        file.write(line[20:])
        assert steps_of(all_of(follower)) == [2]


def test_a_run_without_its_first_word_is_introduced(folder: Folder) -> None:
    told_by(folder, step(1), step(2))
    assert not (folder.path / "events.jsonl").exists()
    (folder.path / "config.toml").write_text("not [toml")
    first, *rest = lasting(all_of(Follower(folder.path)))
    assert isinstance(first, events.RunStarted) and first.run == "r"
    assert first.pid == os.getpid()
    assert steps_of(rest) == [1, 2]


def test_a_process_that_is_gone_without_a_word_has_crashed(folder: Folder) -> None:
    told_by(folder, started(), step(1))
    status = follow.read_status(folder.path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    status.pid, status.process = gone.pid, "gone/1"
    write_status(folder.path, status, durable=False)
    follower = Follower(folder.path)
    found = all_of(follower)
    failed = found[-1]
    assert isinstance(failed, events.Failed)
    assert "crashed" in failed.title and "tui-lab train --resume r" in failed.hint
    assert not any(isinstance(event, events.Failed) for event in all_of(follower)), "said once"


def test_a_run_that_goes_on_in_another_process_loses_the_steps_that_never_were(folder: Folder):
    steps = [step(number) for number in range(1, 31)]
    told_by(folder, started(), *steps[:25], evaluated(25, 0.5), *steps[25:])
    follower, run = Follower(folder.path), RunState()
    for event in all_of(follower):
        run.apply(event)
    assert run.step == 30 and run.best.step == 25
    writer = told_by(folder, started(20, resumed=True))
    for event in all_of(follower):
        run.apply(event)
    assert run.series.step[-1] == run.step == 20
    assert run.validation == [] and run.best is None
    writer(step(21, loss=1.0))
    writer.flush()
    for event in all_of(follower):
        run.apply(event)
    assert list(run.series.step) == list(range(1, 22)) and run.series.loss[-1] == 1.0
    assert run.live
    # Whoever comes only now sees the same.
    late = RunState()
    for event in all_of(Follower(folder.path)):
        late.apply(event)
    assert late.series.step == run.series.step
    writer.close()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_clock_that_was_put_back_changes_nothing_of_the_order(folder: Folder, before: bool):
    """By a day, before the second process has said its first word, or after it."""
    told_by(folder, started(), *(step(number) for number in range(1, 31)))
    past = time.time() - 86_400
    first = past if before else time.time()
    later = [
        events.RunStarted(**vars(started(20, resumed=True)) | {"time": first}),
        *(events.StepDone(**vars(step(n)) | {"time": past + n}) for n in range(21, 26)),
        events.EvalDone(**vars(evaluated(25, 1.0)) | {"time": past + 25.5}),
    ]
    told_by(folder, *later)
    run = RunState()
    for event in all_of(Follower(folder.path)):
        run.apply(event)
    assert list(run.series.step) == list(range(1, 26))
    assert run.validation == [(25, 1.0)]


def test_a_file_that_was_replaced_is_read_anew(folder: Folder) -> None:
    told_by(folder, started(), step(1), step(2))
    follower = Follower(folder.path)
    assert steps_of(all_of(follower)) == [1, 2]
    other = folder.path / "other"
    other.write_text("".join(events.to_json(step(n, loss=9.0)) + "\n" for n in (1, 2, 3)))
    os.replace(other, folder.path / "metrics.jsonl")
    assert steps_of(all_of(follower)) == [1, 2, 3]


def test_a_long_history_comes_in_portions(folder: Folder) -> None:
    told_by(folder, started())
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.writelines(events.to_json(step(number)) + "\n" for number in range(1, 20_001))
    follower = Follower(folder.path)
    portions = []
    while not follower.caught_up:
        portions.append(len(follower.poll()))
    assert sum(portions) >= 20_000
    assert max(portions) < 1_000
    done, total = follower.progress
    assert done == total > 0


def test_a_folder_that_says_nothing_ends_in_a_word_and_no_exception(tmp_path, monkeypatch) -> None:
    follower = Follower(tmp_path / "absent")
    assert all_of(follower) == [], "it may be in the making"
    monkeypatch.setattr(follow, "UNSAID_SECONDS", 0.0)
    first, last = all_of(follower)
    assert isinstance(first, events.RunStarted) and isinstance(last, events.Failed)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([1]),
    st.just({}), st.just(10**400),
)  # fmt: skip
names = st.sampled_from([*events.Event.kinds, "step_done", "none", ""])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_lines_that_anybody_may_have_written_never_break_what_reads_them(data) -> None:
    """Good records with some fields replaced by anything, folded into the state of a run."""
    run = RunState()
    for _ in range(3):
        event = data.draw(st.sampled_from([started(), step(3), evaluated(2, 1.0), finished()]))
        record = events.to_record(event)
        for key in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=3)):
            record[key] = data.draw(values if key != "event" else st.one_of(names, values))
        line = json.loads(json.dumps(record))
        if (found := event_of(line)) is not None:
            run.apply(found)
    assert run.eta is None or not math.isnan(run.eta)
