"""What is deleted, and what never is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from engine.checkpoints import list_checkpoints, newest_verified
from engine.checkpoints.load import load_weights
from engine.checkpoints.retention import Retention, remove
from engine.checkpoints.save import write_checkpoint
from engine.checkpoints.snapshot import Memory
from engine.errors import CheckpointError
from tests.engine.checkpoints.making import checkpoint, flip, meta, tensors, training_tensors


def place(run: Path, step: int, val_loss: float | None = None, kind: str = "rolling") -> Path:
    """A checkpoint saved, and nothing deleted for it."""
    snapshot = Memory().take(tensors(), training_tensors(), {}, meta(step, val_loss), kind)
    return write_checkpoint(run, snapshot).path


def steps(run: Path) -> list[int]:
    return [info.step for info in list_checkpoints(run)]


def apply(run: Path, policy: str = "rolling", resumed_from: Path | None = None) -> list[int]:
    newest = list_checkpoints(run)[-1].path
    return [info.step for info in Retention(run, policy, resumed_from).apply(newest)]


def test_rolling_keeps_one_of_those_made_on_the_way(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint(tmp_path, step, kind="rolling", policy="rolling")
        assert steps(tmp_path) == [step]
    checkpoint(tmp_path, 40, kind="final", policy="rolling")
    checkpoint(tmp_path, 50, kind="rolling", policy="rolling")  # the run was given more steps
    assert steps(tmp_path) == [50]


@pytest.mark.parametrize("policy", ["rolling", "all"])
def test_what_matters_is_never_deleted(tmp_path: Path, policy: str) -> None:
    """The best, what the run resumed from and what a person saved stay beside the newest."""
    manual = place(tmp_path, 10, kind="manual")
    place(tmp_path, 20, 2.0)
    place(tmp_path, 30, 2.5)
    resumed = place(tmp_path, 40)
    place(tmp_path, 50)
    place(tmp_path, 60)
    assert apply(tmp_path, policy, resumed) == [30, 50]
    assert steps(tmp_path) == [10, 20, 40, 60]
    place(tmp_path, 70, 1.9)
    assert apply(tmp_path, policy) == [20, 40, 60]  # a better one is there; another process
    assert manual.is_dir()


def test_all_keeps_periodic_ones_and_one_best(tmp_path: Path) -> None:
    """A former best goes when a better one is there; the best of the periodic ones is marked."""
    checkpoint(tmp_path, 10, 3.0, kind="best", policy="all")
    checkpoint(tmp_path, 20, 2.5, kind="periodic", policy="all")
    checkpoint(tmp_path, 30, 2.0, kind="best", policy="all")
    checkpoint(tmp_path, 40, 2.2, kind="periodic", policy="all")
    found = list_checkpoints(tmp_path)
    assert [(info.step, info.best) for info in found] == [(20, False), (30, True), (40, False)]


def test_periodic_ones_survive_a_change_of_policy(tmp_path: Path) -> None:
    """They were asked for: resuming with `rolling` deletes only what comes after."""
    place(tmp_path, 10, kind="periodic")
    checkpoint(tmp_path, 20, kind="rolling", policy="rolling")
    assert steps(tmp_path) == [10, 20]


def test_nothing_goes_before_the_new_one_is_proven(tmp_path: Path) -> None:
    """The new checkpoint is damaged on its way to the disk: the old one stays."""
    old = place(tmp_path, 1)
    new = place(tmp_path, 2)
    flip(new / "model.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        apply(tmp_path)
    assert old.is_dir()
    flip(new / "model.safetensors")
    assert apply(tmp_path) == [1]


def test_a_damaged_best_protects_nothing_and_the_next_best_is_kept(tmp_path: Path) -> None:
    """One flipped bit in the best: the best is the one that loads; the damaged is left alone."""
    damaged = place(tmp_path, 10, 1.0)
    place(tmp_path, 20, 1.5)
    place(tmp_path, 30, 2.5)
    place(tmp_path, 40, 2.0)
    flip(damaged / "model.safetensors")
    assert apply(tmp_path) == [30]
    assert steps(tmp_path) == [10, 20, 40]


def test_a_damaged_one_is_left_unless_its_step_was_saved_again(tmp_path: Path) -> None:
    damaged = place(tmp_path, 10, kind="periodic")
    (damaged / "model.safetensors").unlink()
    checkpoint(tmp_path, 20, kind="rolling", policy="rolling")
    assert damaged.is_dir()
    place(tmp_path, 10, kind="manual")
    apply(tmp_path)
    assert not damaged.is_dir()
    assert steps(tmp_path) == [10, 20]


def test_what_a_person_saved_goes_for_another_such_alone(tmp_path: Path) -> None:
    """Saved by hand, resumed from, saved again at once by the run: the first is still the one."""
    mine = place(tmp_path, 10, kind="manual")
    checkpoint(tmp_path, 10, kind="rolling", policy="rolling")
    assert mine.is_dir()
    checkpoint(tmp_path, 10, kind="manual", policy="rolling")
    assert [info.path.name for info in list_checkpoints(tmp_path)] == ["step_000010-3"]


def test_what_the_run_resumed_from_is_known_by_any_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = place(tmp_path, 1)
    place(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    assert apply(tmp_path, "rolling", Path(resumed.name)) == []


def test_a_loss_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    place(tmp_path, 1, 2.0)
    place(tmp_path, 2, float("nan"))
    place(tmp_path, 3, float("-inf"))
    assert [info.best for info in list_checkpoints(tmp_path)] == [True, False, False]
    assert apply(tmp_path) == [2]


def test_a_reader_of_what_is_deleted_is_told_so(tmp_path: Path) -> None:
    """Checkpoints come and go while others load them: a typed error, or what was saved."""
    checkpoint(tmp_path, 1, kind="rolling", policy="rolling")
    over = threading.Event()
    other: list[BaseException] = []
    read = [0, 0]

    def reader() -> None:
        while not over.is_set():
            for info in list_checkpoints(tmp_path):
                try:
                    load_weights(info)
                    read[0] += 1
                except CheckpointError:
                    read[1] += 1
                except BaseException as error:
                    other.append(error)

    def finder() -> None:
        while not over.is_set():
            info, problems = newest_verified(tmp_path)
            if info is None:
                other.append(AssertionError(problems))

    threads = [threading.Thread(target=each) for each in (reader, reader, finder)]
    for thread in threads:
        thread.start()
    for step in range(2, 25):
        checkpoint(tmp_path, step, kind="rolling", policy="rolling")
    over.set()
    for thread in threads:
        thread.join()
    assert other == []
    assert read[0] > 0


def test_what_could_not_be_removed_whole_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room of a deleted checkpoint comes back, at the next save at the latest."""
    old = place(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr("engine.checkpoints.retention.discard", lambda path: None)
        remove(old)
    assert list(tmp_path.glob(f".tmp-deleted-*-{os.getpid()}"))
    checkpoint(tmp_path, 2, kind="rolling", policy="rolling")
    assert not list(tmp_path.glob(".tmp-deleted-*"))
