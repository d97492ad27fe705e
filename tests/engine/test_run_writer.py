"""The run's files say what happened, in time, and never disturb the training."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import events
from engine.metrics import read_events, read_metrics
from engine.run_writer import RunWriter
from engine.status import read_status


@dataclass
class Folder:
    path: Path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def step(number: int, loss: float = 2.0) -> events.StepDone:
    return events.StepDone(
        step=number, tokens=number * 10, loss=loss, lr=1e-3, grad_norm=0.5,
        tokens_per_second=100.0, mfu=None, memory_bytes=5,
    )  # fmt: skip


def started(at: int = 0, resumed: bool = False) -> events.RunStarted:
    return events.RunStarted(
        run="r", path="", config="", step=at, tokens=0, max_steps=50, steps_per_epoch=1.0,
        tokens_per_step=10, n_parameters=123, flops_per_token=1.0, context_length=8, vocab_size=50,
        train_tokens=1, val_tokens=1, bytes_per_token=1.0, device="cpu", device_name="a CPU",
        precision="float32", threads=1, peak_flops=0.0, peak_source="", pid=1, host="h",
        resumed=resumed,
    )  # fmt: skip


def evaluated(at: int, loss: float) -> events.EvalDone:
    return events.EvalDone(
        step=at, tokens=9, val_loss=loss, perplexity=1.0, bits_per_byte=None, best=True, seconds=1.0
    )


def finished(reason: str = "completed") -> events.Finished:
    return events.Finished(run="r", step=2, tokens=20, reason=reason, seconds=1.0)


def test_each_event_finds_its_file(folder: Folder) -> None:
    writer = RunWriter(folder)
    for event in (started(), step(1), step(2), evaluated(2, 1.5), finished()):
        writer(event)
    writer.close()
    columns = read_metrics(folder.path)
    assert columns["step"].tolist() == [1, 2]
    assert columns["val_loss"][1] == 1.5
    assert [record["event"] for record in read_events(folder.path)] == [
        "run_started",
        "eval_done",
        "finished",
    ]
    assert events.from_record(read_events(folder.path, ["eval_done"])[0]).val_loss == 1.5
    log = (folder.path / "log.txt").read_text()
    assert "validation loss 1.5000  best" in log
    status = read_status(folder.path)
    assert (status.state, status.step, status.loss, status.max_steps) == ("finished", 2, 2.0, 50)
    assert (status.best_val_loss, status.best_step, status.n_parameters) == (1.5, 2, 123)


def test_what_passes_by_is_not_kept(folder: Folder) -> None:
    """Tokens, progress and device load would fill the disk and tell nobody anything later."""
    writer = RunWriter(folder)
    writer(events.TokenGenerated(request="r", index=0, token=1, text="x", probability=0.5))
    writer(events.EvalProgress(step=1, done=1, total=2))
    writer(events.DeviceStats(used=1, peak=1, total=1))
    writer(events.Phase(phase="training", step=1))
    writer.close()
    assert not (folder.path / "events.jsonl").exists()


def test_steps_are_gathered(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one write a second and file while steps fly by; none of them waits for the disk."""
    now = [1000.0]
    monkeypatch.setattr("engine.run_writer.time.monotonic", lambda: now[0])
    writer = RunWriter(folder)
    calls: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append(len(data)), write(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("a step waited for the disk"))
    for number in range(1, 1001):
        now[0] += 0.01  # ten seconds in all
        writer(step(number))
    assert len(calls) <= 14  # one a second for metrics, now and then one for the log
    assert len(read_metrics(folder.path)["step"]) >= 900


def test_a_resume_goes_on_from_its_step(folder: Folder) -> None:
    """Rows of the abandoned future go; the best loss stays only if it lies before the resume."""
    writer = RunWriter(folder)
    for event in (started(), step(1), evaluated(1, 3.0), step(2), step(3)):
        writer(event)
    writer.close()
    assert read_status(folder.path).state == "stopped"
    again = RunWriter(folder)
    assert read_status(folder.path).state == "running"
    again(started(2, resumed=True))
    again(step(3, loss=9.0))
    again.close()
    assert read_metrics(folder.path)["loss"].tolist() == [2.0, 2.0, 9.0]
    status = read_status(folder.path)
    assert (status.best_val_loss, status.best_step) == (3.0, 1)
    third = RunWriter(folder)
    third(started(0, resumed=True))
    third.close()
    assert read_status(folder.path).best_val_loss is None


def test_states_follow_the_events(folder: Folder) -> None:
    writer = RunWriter(folder)
    for event, state in (
        (started(), "running"),
        (events.Paused(step=1), "paused"),
        (events.Resumed(step=1), "running"),
        (finished("stopped"), "stopped"),
        (events.Failed(step=1, title="no memory"), "failed"),
    ):
        writer(event)
        assert read_status(folder.path).state == state
    assert read_status(folder.path).error == "no memory"


def test_a_full_disk_is_said_once_and_nothing_is_lost(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training never sees the error; when there is room again the history is whole."""
    troubles: list[str] = []
    writer = RunWriter(folder, on_trouble=lambda title, hint: troubles.append(title))
    writer(started())
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        """The disk takes half a line, and then nothing more."""
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, data[: len(data) // 2])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    for number in (1, 2, 3):
        writer(step(number))
        writer(evaluated(number, 1.0))
    assert len(troubles) == 1
    assert "No space left" in troubles[0]
    monkeypatch.setattr(os, "write", write)
    writer.close()
    assert len(troubles) == 2
    assert read_metrics(folder.path)["step"].tolist() == [1, 2, 3]
    assert len(read_events(folder.path, ["eval_done"])) == 3
    for text in (folder.path / "metrics.jsonl").read_text().splitlines():
        json.loads(text)


def test_a_torn_line_of_a_killed_writer_spoils_only_itself(folder: Folder) -> None:
    (folder.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    writer = RunWriter(folder)
    writer(started(1, resumed=True))
    writer(step(2))
    writer.close()
    assert read_metrics(folder.path)["step"].tolist() == [1, 2]


def test_hostile_text_reaches_no_terminal_by_the_log(folder: Folder) -> None:
    """`cat log.txt` must be safe: samples hold whatever the corpus held."""
    writer = RunWriter(folder)
    writer(
        events.SampleDone(
            step=1, prompt="p", text="\x1b]52;c;x\x07\u202e\ud800", tokens=1, seconds=1.0
        )
    )
    writer.close()
    log = (folder.path / "log.txt").read_bytes().decode()
    assert "\x1b" not in log
    assert "\u202e" not in log
    assert "sample: p" in log


def test_the_steps_before_a_save_are_written_before_it(folder: Folder) -> None:
    """Whoever is killed right after the save resumes from it, and has no step without a loss."""
    writer = RunWriter(folder)
    for event in (started(), step(1), step(2), events.Phase(phase="saving", step=2)):
        writer(event)
    assert list(read_metrics(folder.path)["step"]) == [1, 2]
