"""Whether a run lives is judged by its own recent steps, and by no clock that somebody sets."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import events
from engine.pulse import Pulse
from engine.run_writer import RunWriter
from engine.status import Status, is_running, judged, own_status, read_status, write_status


@dataclass
class Folder:
    path: Path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = time.time(), time.monotonic()
        monkeypatch.setattr("time.time", lambda: self.wall)
        monkeypatch.setattr("time.monotonic", lambda: self.steady)

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def training(step_seconds: float, report_seconds: float = 0.0) -> Status:
    status = own_status()
    status.phase, status.step_seconds = "training", step_seconds
    status.report_seconds = report_seconds
    return status


def step(number: int) -> events.StepDone:
    return events.StepDone(
        step=number, tokens=number, loss=2.0, lr=1e-3, grad_norm=0.5, tokens_per_second=9.0,
        mfu=None, memory_bytes=5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step_seconds", "report_seconds", "patience"),
    [
        (0.01, 0.01, 30),  # fast steps: half a minute
        (10.0, 10.0, 200),  # slow ones: twenty of them
        (1.0, 100.0, 300),  # logged each hundredth: three reports
        (0.0, 0.0, 300),  # none measured yet: the first may take long
        (float("nan"), float("inf"), 300),
    ],
)
def test_a_loop_is_stalled_after_a_silence_that_is_long_for_it(
    clock: Clock, step_seconds: float, report_seconds: float, patience: float
) -> None:
    status = training(step_seconds, report_seconds)
    clock.run(patience - 1)
    assert judged(status) == "running"
    clock.run(2)
    assert judged(status) == "stalled"
    assert is_running(status)  # its process lives: nobody may delete it, or resume it


@pytest.mark.parametrize("phase", ["loading", "compiling", "evaluating", "sampling", "saving", ""])
def test_what_takes_what_it_takes_is_not_stalled(clock: Clock, phase: str) -> None:
    """Also an old version's status, which names no phase."""
    status = training(0.01)
    status.phase = phase
    clock.run(10_000)
    assert judged(status) == "running"


def test_a_paused_run_is_not_stalled(clock: Clock) -> None:
    status = training(0.01)
    status.state = "paused"
    clock.run(10_000)
    assert judged(status) == "paused"


@pytest.mark.parametrize(("step_seconds", "patience"), [(0.01, 60), (10.0, 200)])
def test_on_another_host_silence_is_all_that_tells(
    clock: Clock, step_seconds: float, patience: float
) -> None:
    status = training(step_seconds)
    status.host, status.updated = "elsewhere", clock.wall
    clock.run(patience - 1)
    assert judged(status) == "running" and is_running(status)
    clock.run(2)
    assert judged(status) == "unknown" and not is_running(status)


def test_a_loop_on_another_host_is_stalled_by_that_hosts_own_clock(clock: Clock) -> None:
    """However far that clock is from ours."""
    status = training(0.01)
    status.host, status.advanced = "elsewhere", clock.wall + 5000
    status.updated = status.advanced + 29
    assert judged(status) == "running"
    status.updated = status.advanced + 31
    assert judged(status) == "stalled"


def test_a_clock_that_is_set_kills_and_stalls_nothing(clock: Clock) -> None:
    for jump in (86_400, -86_400):
        status = training(0.01)
        clock.wall += jump
        assert judged(status) == "running"
    status.host, status.updated = "elsewhere", clock.wall + 86_400  # a host whose clock is ahead
    assert judged(status) == "running"


def test_a_status_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    status = own_status()
    old = {"state": "running", "pid": status.pid, "host": status.host, "process": status.process}
    (tmp_path / "status.json").write_text(json.dumps(old))
    assert judged(read_status(tmp_path)) == "running"
    write_status(tmp_path, status, durable=False)
    text = json.loads((tmp_path / "status.json").read_text())
    wrong = {"phase": 3, "phase_done": "x", "since": [], "step_seconds": {}, "used_bytes": "9"}
    (tmp_path / "status.json").write_text(json.dumps(text | wrong))
    read = read_status(tmp_path)
    assert (read.phase, read.phase_done, read.since, read.used_bytes) == ("", 0, 0.0, None)
    assert judged(read) == "running"


def test_the_pulse_is_the_median_step_and_bursts_are_no_pace(clock: Clock) -> None:
    pulse = Pulse()
    assert pulse.step_seconds == 0
    for number in range(1, 12):  # each second step logged, 2 s apart; once an evaluation between
        clock.run(100.0 if number == 6 else 2.0)
        pulse.step(2 * number)
    assert pulse.step_seconds == 1.0 and pulse.report_seconds == 2.0
    pulse = Pulse()
    for number in range(1, 400):  # four steps arrive at once, and then none for 0.4 s
        clock.run(0.4 if number % 4 == 0 else 0.0)
        pulse.step(number)
    assert pulse.step_seconds == pytest.approx(0.1)


def test_a_pause_is_no_step(clock: Clock) -> None:
    pulse = Pulse()
    pulse.step(1)
    pulse.rest()
    clock.run(5000)
    pulse.rest()
    pulse.step(2)
    clock.run(1)
    pulse.step(3)
    assert pulse.step_seconds == 1.0


def test_the_status_says_what_the_loop_does(folder: Folder, clock: Clock) -> None:
    writer = RunWriter(folder)
    assert read_status(folder.path).phase == "loading"
    since = clock.wall
    clock.run(5)
    for event in (
        events.DeviceStats(used=1, peak=2, total=3, reserved=4, utilization=50.0, power=70.0),
        events.Phase(phase="evaluating", step=3),
        events.EvalProgress(step=3, done=4, total=9),
    ):
        writer(event)
    clock.run(1)
    writer.beat()
    status = read_status(folder.path)
    assert (status.phase, status.phase_done, status.phase_total) == ("evaluating", 4, 9)
    assert (status.used_bytes, status.peak_bytes, status.total_bytes) == (1, 2, 3)
    assert (status.reserved_bytes, status.utilization, status.power) == (4, 50.0, 70.0)
    assert status.temperature is None
    assert status.since == pytest.approx(since)
    assert status.advanced == pytest.approx(clock.wall - 1, abs=0.01)
    writer(events.Phase(phase="training", step=3))
    writer(events.Paused(step=3))
    assert read_status(folder.path).phase == "paused"
    assert read_status(folder.path).phase_total == 0


def test_alerts_from_beside_the_loop_do_not_make_it_move(folder: Folder, clock: Clock) -> None:
    """A watchdog that reports silence must not end it."""
    writer = RunWriter(folder)
    writer(events.Phase(phase="training", step=1))
    for number in range(1, 40):
        clock.run(0.1)
        writer(step(number))
    clock.run(40)
    writer(events.Alert(level="warning", title="nothing has moved for 40 s"))
    writer(events.DeviceStats(used=1, peak=2, total=3))
    assert judged(read_status(folder.path)) == "stalled"
    clock.run(1)
    writer(step(41))
    assert judged(read_status(folder.path)) == "running"


def test_a_beat_keeps_the_status_fresh_once_a_second_until_the_last_word(
    folder: Folder, clock: Clock
) -> None:
    writer = RunWriter(folder)
    seen = set()
    for _ in range(100):  # ten seconds of looks
        clock.run(0.1)
        writer.beat()
        seen.add(read_status(folder.path).updated)
    assert 9 <= len(seen) <= 11
    writer(events.Finished(run="r", step=2, tokens=20, reason="completed", seconds=1.0))
    last = (folder.path / "status.json").read_bytes()
    clock.run(60)
    writer.beat()
    assert (folder.path / "status.json").read_bytes() == last
    assert judged(read_status(folder.path)) == "finished"


def test_a_beat_never_waits_for_who_writes(folder: Folder) -> None:
    """The thread that beats also takes commands: a disk that hangs must not keep it."""
    writer = RunWriter(folder)
    writer._flushed = -1e9  # a beat is due
    with writer._lock:
        beats = threading.Thread(target=writer.beat)
        beats.start()
        beats.join(5)
        assert not beats.is_alive()


def test_threads_that_write_at_once_spoil_nothing(folder: Folder) -> None:
    writer = RunWriter(folder)

    def beat() -> None:
        for _ in range(200):
            writer.flush()

    threads = [threading.Thread(target=beat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 200):
        writer(step(number))
        if number % 20 == 0:
            writer(events.Alert(level="info", title=f"at {number}"))
    for thread in threads:
        thread.join()
    writer.close()
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 200))
    assert len((folder.path / "events.jsonl").read_text().splitlines()) == 9
    assert read_status(folder.path).step == 199
