"""References lead to the right checkpoint, and never outside; deleting asks the right questions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.checkpoints import (
    check_name,
    delete,
    delete_run,
    find_checkpoint,
    list_checkpoints,
)
from engine.errors import CheckpointError, InputError
from engine.lab import Lab
from engine.status import own_status, write_status
from tests.engine.checkpoints.making import checkpoint, flip, run


@pytest.fixture
def path(lab: Lab) -> Path:
    """A run `first` with three checkpoints; the middle one is the best."""
    path = run(lab)
    for step, loss in ((100, 3.0), (200, 2.0), (300, 2.5)):
        checkpoint(path, step, loss)
    return path


@pytest.mark.parametrize(
    ("reference", "step"),
    [("first", 300), ("first@last", 300), ("first@best", 200), ("first@100", 100)],
)
def test_references(lab: Lab, path: Path, reference: str, step: int) -> None:
    assert find_checkpoint(lab, reference).step == step


def test_folders_as_references(lab: Lab, path: Path) -> None:
    assert find_checkpoint(lab, "first/step_000200").best
    assert find_checkpoint(lab, str(path)).step == 300
    assert find_checkpoint(lab, str(path / "step_000100")).step == 100


def test_the_newest_sound_one_is_meant(lab: Lab, path: Path) -> None:
    """The broken one is passed over and named; with none sound there is an error."""
    flip(path / "step_000300/model.safetensors")
    problems: list[str] = []
    assert find_checkpoint(lab, "first", problems).step == 200
    assert "step_000300" in problems[0]
    for step in (100, 200):
        flip(path / f"step_000{step}/model.safetensors")
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        find_checkpoint(lab, "first")


@pytest.mark.parametrize(
    ("reference", "title", "hint"),
    [
        ("frist", "unknown run 'frist'", "did you mean 'first'?"),
        ("first@150", "no step 150", "it has 100, 200, 300"),
        ("first@bset", "'bset'", "@best"),
        ("first/step_000150", "no 'step_000150'", "100, 200, 300"),
        ("../first", "unknown run", ""),
        ("/nowhere/step_000001", "no checkpoint at", ""),
        ("", "unknown run", ""),
    ],
)
def test_what_is_not_there_is_said(
    lab: Lab, path: Path, reference: str, title: str, hint: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(lab, reference)
    assert title in caught.value.title
    assert hint in caught.value.hint


def test_links_are_refused(lab: Lab, path: Path, tmp_path: Path) -> None:
    """A link planted in a lab would lead readers, and `delete`, somewhere else."""
    (lab.checkpoints / "planted").symlink_to(path)
    (path / "step_000400").symlink_to(path / "step_000300")
    with pytest.raises(CheckpointError, match="symbolic link"):
        find_checkpoint(lab, "planted")
    with pytest.raises(CheckpointError, match="symbolic link"):
        find_checkpoint(lab, "first/step_000400")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        delete(path / "step_000400")
    with pytest.raises(CheckpointError, match="not a run"):
        delete_run(lab.checkpoints / "planted")
    assert find_checkpoint(lab, "first").step == 300


def test_a_link_is_refused_by_its_path_too(
    lab: Lab, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.checkpoints / "planted").symlink_to(path)
    monkeypatch.chdir(lab.root)
    for reference in (
        "checkpoints/planted",
        "checkpoints/planted/",
        str(lab.checkpoints / "planted"),
    ):
        with pytest.raises(CheckpointError, match="symbolic link"):
            find_checkpoint(lab, reference)


@pytest.mark.parametrize(
    "reference",
    [
        "~nobody-at-all/x",
        "a" * 300,
        "/" + "a" * 300,
        "a/" * 3_000,
        "\0",
        "first\0",
        "\ud800",
        "~root",
    ],
)
def test_what_the_system_cannot_name_is_not_there(lab: Lab, path: Path, reference: str) -> None:
    """Python answers some of these with errors of its own kind."""
    with pytest.raises(CheckpointError):
        find_checkpoint(lab, reference)


def test_digits_of_other_scripts_make_no_second_step(path: Path) -> None:
    shutil.copytree(path / "step_000100", path / "step_٠٠٠١٠٠")
    assert [info.step for info in list_checkpoints(path)] == [100, 200, 300]


def test_the_best_is_told_by_losses_that_can_be_believed(lab: Lab, path: Path) -> None:
    """One flipped digit must neither make another the best nor hide that the best is broken."""
    facts = path / "step_000200/meta.json"
    whole = facts.read_text()
    for digit in ("1", "9"):
        facts.write_text(whole.replace('"val_loss": 2.0', f'"val_loss": {digit}.0'))
        problems: list[str] = []
        found = find_checkpoint(lab, "first@best", problems)
        assert (found.step, found.best) == (300, True)
        assert "step_000200/meta.json" in problems[0]
    facts.write_text(whole)
    flip(path / "step_000200/model.safetensors")
    problems = []
    assert find_checkpoint(lab, "first@best", problems).step == 300
    assert "step_000200/model.safetensors" in problems[0]


def test_of_several_saves_of_a_step_the_last_sound_one(lab: Lab, path: Path) -> None:
    again = path / "step_000300-2"
    shutil.copytree(path / "step_000300", again)
    assert find_checkpoint(lab, "first@300").path == again
    flip(again / "state.json")
    problems: list[str] = []
    assert find_checkpoint(lab, "first@300", problems).path == path / "step_000300"
    assert again.name in problems[0]


def test_a_run_without_its_run_file_is_not_called_unknown(lab: Lab, path: Path) -> None:
    (path / "run.json").unlink()
    with pytest.raises(CheckpointError, match=r"has lost its run\.json"):
        find_checkpoint(lab, "first")
    assert find_checkpoint(lab, str(path / "step_000300")).step == 300


def test_deleting(lab: Lab, path: Path) -> None:
    delete(path / "step_000300")
    assert find_checkpoint(lab, "first").step == 200
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        delete(path)
    delete_run(path)
    assert list(lab.checkpoints.iterdir()) == []


def test_a_running_run_loses_nothing(lab: Lab, path: Path) -> None:
    write_status(path, own_status(), durable=False)
    for act, target in ((delete, path / "step_000100"), (delete_run, path)):
        with pytest.raises(CheckpointError, match="is running"):
            act(target)
    assert (path / "step_000100").is_dir()


@pytest.mark.parametrize("name", ["micro", "a b", "Größe-2", "x" * 100, "v1.2_x"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x1bb",
        "a\u202eb",
        "a@b",
        " a",
        "é" * 51,
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name)
