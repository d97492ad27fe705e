"""What is deleted, and what never is."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints import list_checkpoints
from engine.checkpoints.retention import retain
from engine.checkpoints.save import save
from tests.engine.checkpoints.making import checkpoint, flip, meta, tensors


def steps(run: Path) -> list[int]:
    return [info.step for info in list_checkpoints(run)]


def test_rolling_keeps_exactly_one(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint(tmp_path, step, kind="rolling", policy="rolling")
        assert steps(tmp_path) == [step]


def test_all_keeps_periodic_ones_and_one_best(tmp_path: Path) -> None:
    """A former best goes when a better one is there; the best of the periodic ones is marked."""
    checkpoint(tmp_path, 10, 3.0, kind="best")
    checkpoint(tmp_path, 20, 2.5, kind="periodic")
    checkpoint(tmp_path, 30, 2.0, kind="best")
    checkpoint(tmp_path, 40, 2.2, kind="periodic")
    found = list_checkpoints(tmp_path)
    assert [(info.step, info.best) for info in found] == [(20, False), (30, True), (40, False)]


def test_nothing_goes_before_the_new_one_is_proven(tmp_path: Path) -> None:
    """The new checkpoint is damaged on its way to the disk: the old one stays."""
    old = checkpoint(tmp_path, 1)
    new = checkpoint(tmp_path, 2)
    flip(new / "model.safetensors")
    assert retain(tmp_path, new, "rolling") == []
    assert old.is_dir()
    flip(new / "model.safetensors")
    assert [info.path for info in retain(tmp_path, new, "rolling")] == [old]


def test_what_the_run_resumed_from_is_kept(tmp_path: Path) -> None:
    resumed = checkpoint(tmp_path, 1, kind="rolling")
    checkpoint(tmp_path, 2, kind="rolling")
    assert not resumed.is_dir()
    resumed = tmp_path / "step_000002"
    new = save(tmp_path, tensors(), {}, {}, meta(3), policy="all", resumed_from=resumed).path
    assert steps(tmp_path) == [2, 3]
    retain(tmp_path, new, "all")
    assert steps(tmp_path) == [3]


def test_a_loss_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    checkpoint(tmp_path, 1, 2.0)
    checkpoint(tmp_path, 2, float("nan"))
    checkpoint(tmp_path, 3, float("-inf"))
    assert [info.best for info in list_checkpoints(tmp_path)] == [True, False, False]
