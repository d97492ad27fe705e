"""Saving behind training: the moment given is what is written, and a failure mends itself."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from engine.checkpoints import background, list_checkpoints, newest_verified, verify
from engine.checkpoints.background import BackgroundSaver
from engine.checkpoints.load import load_weights
from engine.checkpoints.save import SaveError, SaveResult
from tests.engine.checkpoints.making import checkpoint, meta, tensors, training_tensors


def test_background_save_holds_the_moment_of_the_snapshot(tmp_path: Path) -> None:
    """Training changes the weights while they are written; the file has them as they were."""
    saved: list[SaveResult] = []
    saver = BackgroundSaver(tmp_path, on_saved=saved.append)
    weight = torch.zeros(300, 1000)
    for step in (1, 2, 3):
        weight.fill_(step)
        saver.snapshot({"w": weight}, {"m": weight}, {}, meta(step))
        weight.fill_(-1)
    assert saver.wait()
    assert [result.step for result in saved] == [1, 2, 3]
    (info,) = list_checkpoints(tmp_path)  # rolling: exactly one
    assert info.step == 3
    assert torch.equal(load_weights(info)["w"], torch.full((300, 1000), 3.0))


def test_writing_happens_behind_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`snapshot` returns while the disk is still busy, and `wait` waits for it."""
    go_on = threading.Event()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (go_on.wait(10), sync(fd)))
    saver = BackgroundSaver(tmp_path)
    started = time.perf_counter()
    saver.snapshot(tensors(), training_tensors(), {}, meta(1))
    assert time.perf_counter() - started < 5
    assert saver.busy
    assert list_checkpoints(tmp_path) == []
    go_on.set()
    assert saver.wait()
    assert not saver.busy
    assert [info.step for info in list_checkpoints(tmp_path)] == [1]


@pytest.mark.parametrize("fails", range(14))
def test_a_write_that_fails_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The k-th write or flush runs out of disk: the old one loads, the save is tried again."""
    checkpoint(tmp_path, 1)
    write, sync, calls = os.write, os.fsync, [0]

    def failing(real):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            calls[0] += 1
            if calls[0] == fails + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "write", failing(write))
    monkeypatch.setattr(os, "fsync", failing(sync))
    told: list[tuple[SaveError, bool]] = []
    saver = BackgroundSaver(tmp_path, on_failed=lambda error, again: told.append((error, again)))
    saver.snapshot(tensors(), training_tensors(), {}, meta(2))
    while saver.busy:
        time.sleep(0.001)
    assert len(told) == 1
    assert "disk is full" in told[0][0].title
    assert "MB" in told[0][0].title
    assert told[0][1] is True
    newest, _ = newest_verified(tmp_path)
    assert newest is not None  # whatever fails, there is a sound one
    assert not list(tmp_path.glob(".tmp-*"))
    assert saver.wait()  # the last try succeeds: the disk has room again
    newest, problems = newest_verified(tmp_path)
    assert newest is not None
    assert newest.step == 2
    assert problems == []


def test_an_unwritable_folder_is_an_alert_not_a_crash(tmp_path: Path) -> None:
    """The folder is gone (unmounted, deleted): training hears of it and goes on."""
    told: list[bool] = []
    saver = BackgroundSaver(tmp_path / "gone", on_failed=lambda error, again: told.append(again))
    saver.snapshot(tensors(), None, None, meta(1))
    assert saver.wait() is False
    assert told == [True, False]


def test_a_state_that_is_no_json_is_an_alert(tmp_path: Path) -> None:
    """What cannot be written is said by the callback: `snapshot` never raises into the loop."""
    told: list[str] = []
    saver = BackgroundSaver(tmp_path, on_failed=lambda error, again: told.append(error.title))
    saver.snapshot(tensors(), None, {"x": object()}, meta(1))
    assert not saver.wait()
    assert "not JSON serializable" in told[0]
    saver.snapshot(tensors(), None, {}, meta(1))
    assert saver.wait()


class Told:
    """A saver's callbacks, in the order in which they came."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors: list[SaveError] = []

    def saver(self, run: Path) -> BackgroundSaver:
        return BackgroundSaver(
            run,
            on_saved=lambda result: self.lines.append(f"saved {result.step}"),
            on_failed=self._failed,
            on_recovered=lambda result: self.lines.append(f"recovered {result.step}"),
            on_deleted=lambda info: self.lines.append(f"deleted {info.step}"),
        )

    def _failed(self, error: SaveError, again: bool) -> None:
        self.errors.append(error)
        self.lines.append("failed" if again else "failed for good")


def rest(saver: BackgroundSaver) -> None:
    while saver.busy:
        time.sleep(0.001)


def test_a_failed_save_is_tried_again_without_a_new_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder comes back (a disk mounted again): what was in memory lands, said once each."""
    monkeypatch.setattr(background, "FIRST_RETRY", 0.01)
    told = Told()
    run = tmp_path / "run"
    saver = told.saver(run)
    saver._delay = 0.01
    saver.snapshot(tensors(), training_tensors(), {}, meta(7))
    rest(saver)
    for _ in range(3):  # tries that fail are not said again
        time.sleep(0.1)
        saver.poll()
        rest(saver)
    assert told.lines == ["failed"]
    run.mkdir()
    deadline = time.monotonic() + 10
    while not list_checkpoints(run) and time.monotonic() < deadline:
        saver.poll()
        time.sleep(0.01)
    assert saver.wait()
    assert told.lines == ["failed", "saved 7", "recovered 7"]
    (info,) = list_checkpoints(run)
    assert verify(info.path) == []


def test_a_disk_that_stays_full_is_tried_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5, 10, 20 … 300 seconds apart: a run that cannot save loses no time to trying."""
    now = [1000.0]
    monkeypatch.setattr(background.time, "monotonic", lambda: now[0])
    saver = BackgroundSaver(tmp_path / "gone")
    saver.snapshot(tensors(), None, None, meta(1))
    rest(saver)
    tries: list[float] = []
    start = saver._start
    monkeypatch.setattr(saver, "_start", lambda: (tries.append(now[0]), start()))
    for _ in range(2000):
        now[0] += 1
        saver.poll()
        rest(saver)
    gaps = [round(b - a) for a, b in zip(tries, tries[1:], strict=False)]
    assert round(tries[0] - 1000) == 5
    assert gaps[:7] == [10, 20, 40, 80, 160, 300, 300]


def test_the_last_try_says_loudly_that_it_failed(tmp_path: Path) -> None:
    told = Told()
    saver = told.saver(tmp_path / "gone")
    saver.snapshot(tensors(), None, None, meta(1))
    assert not saver.wait()
    assert told.lines == ["failed", "failed for good"]
    assert "gone" in told.errors[-1].title


def test_a_poll_with_nothing_to_do_is_nothing(tmp_path: Path) -> None:
    saver = BackgroundSaver(tmp_path)
    started = time.perf_counter()
    for _ in range(10_000):
        saver.poll()
    assert (time.perf_counter() - started) / 10_000 < 5e-6  # 0.05 on an idle machine


def test_a_save_that_cannot_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bytes of a disk are left to metrics and log; the bytes needed and free are said."""
    old = checkpoint(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70_000))
    monkeypatch.setattr(os, "mkdir", lambda *_: pytest.fail("it was begun"))
    told = Told()
    saver = told.saver(tmp_path)
    saver.snapshot({"w": torch.zeros(100_000)}, None, None, meta(2))
    assert not saver.wait()
    assert "the disk is full (0.5 MB needed, 0.1 MB free)" in told.errors[0].title
    assert str(tmp_path) in told.errors[0].hint
    assert [info.path for info in list_checkpoints(tmp_path)] == [old]


def test_what_does_not_read_back_is_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk holds other bytes than it was given: said, nothing acknowledged, and mended."""
    old = checkpoint(tmp_path, 1, kind="rolling")
    told = Told()
    saver = told.saver(tmp_path)
    real = os.write

    def damaging(descriptor: int, data: memoryview) -> int:
        damaged = bytearray(data)
        damaged[-1] ^= 1
        return real(descriptor, damaged)

    monkeypatch.setattr(os, "write", damaging)
    saver.snapshot(tensors(), training_tensors(), {}, meta(2))
    rest(saver)
    monkeypatch.undo()
    assert told.lines == ["failed"]
    assert "does not read back" in told.errors[0].title
    assert [info.path for info in list_checkpoints(tmp_path)] == [old]
    assert saver.wait()
    assert told.lines == ["failed", "saved 2", "recovered 2", "deleted 1"]
    (info,) = list_checkpoints(tmp_path)
    assert verify(info.path) == []


def test_what_cannot_be_deleted_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving goes on: it is only room that is lost."""
    real = os.rename

    def failing(source, target):  # type: ignore[no-untyped-def]
        if ".tmp-deleted" in str(target):
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        real(source, target)

    monkeypatch.setattr(os, "rename", failing)
    told = Told()
    saver = told.saver(tmp_path)
    for step in (1, 2, 3):
        saver.snapshot(tensors(), training_tensors(), {}, meta(step))
        assert saver.wait()
    assert told.lines == ["saved 1", "saved 2", "failed", "saved 3"]
    assert "cannot be deleted" in told.errors[0].title
    monkeypatch.undo()
    saver.snapshot(tensors(), training_tensors(), {}, meta(4))
    assert saver.wait()
    assert [info.step for info in list_checkpoints(tmp_path)] == [4]
