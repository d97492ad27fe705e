"""From what a person types to a run's folder or a checkpoint, and deleting either.

A reference is `run` (its newest sound checkpoint), `run@last`, `run@best`, `run@500`,
`run/step_000500`, or a path to a run or a checkpoint. A lab's own runs come before the shipped
ones. Nothing outside the folder so found is ever read, and symbolic links are refused. A file is
no checkpoint, whatever it holds.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from engine.checkpoints import layout
from engine.checkpoints.layout import (
    CheckpointInfo,
    checkpoint_folders,
    describe,
    list_checkpoints,
)
from engine.checkpoints.pickles import refuse_file
from engine.checkpoints.proof import check_facts, newest_verified, verify
from engine.checkpoints.retention import remove
from engine.errors import CheckpointError, did_you_mean
from engine.lab import Lab, is_shipped
from engine.status import is_running, read_status

RUN_FILE = "run.json"


def run_folders(lab: Lab) -> dict[str, Path]:
    """Every run by name: the lab's own and the shipped ones; an own one hides a shipped one."""
    found: dict[str, Path] = {}
    for place in reversed(lab.places("checkpoints")):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        path = Path(entry.path)
                        # In a checkout of the program, what ships lies among somebody's own runs,
                        # which are nothing to another lab.
                        ours = place == lab.checkpoints or is_shipped(path)
                        if ours and (path / RUN_FILE).is_file():
                            found[entry.name] = path
        except OSError:
            continue
    return dict(sorted(found.items()))


def find_run_folder(lab: Lab, name: str) -> Path:
    """The folder of the run called `name` (or at the path `name`).

    Raises CheckpointError naming the nearest known run.
    """
    runs = run_folders(lab)
    if name in runs:
        return runs[name]
    path = _existing(name)
    if path is not None:
        refuse_file(path)
        if "/" in name and (path / RUN_FILE).is_file():
            return _followed_by_person(path)
    for folder in (_existing(str(lab.checkpoints / name)), path):
        if folder is not None and folder.is_symlink():
            raise CheckpointError(f"run '{name[:200]}' is a symbolic link", "it is not followed")
        if folder is not None and checkpoint_folders(folder):
            raise CheckpointError(
                f"'{folder}' has lost its {RUN_FILE}",
                f"put it back; the checkpoints in it can be named: {folder}/step_000001",
            )
    hint = did_you_mean(name[:200], runs) or "no run is here yet: tui-lab train makes one"
    raise CheckpointError(f"unknown run '{name[:200]}'", hint)


def _existing(reference: str) -> Path | None:
    """The path that `reference` spells, if something is there."""
    try:
        path = Path(reference).expanduser()
        path.lstat()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of nobody
        return None
    return path


def _followed_by_person(path: Path) -> Path:
    """The absolute path of a folder that was named. Its parents are its namer's to arrange; a link
    in its own place is as likely planted. Raises CheckpointError for one."""
    if path.is_symlink():
        raise CheckpointError(f"'{path}' is a symbolic link", "it is not followed")
    return path.resolve()


def run_of(lab: Lab, reference: str) -> Path:
    """The folder of the run that `reference` (in any of its forms) belongs to; nothing in it is
    proven. Raises CheckpointError."""
    direct = _direct(lab, reference)
    if direct is not None:
        return direct.path.parent
    return find_run_folder(lab, reference.partition("@")[0])


def find_checkpoint(lab: Lab, reference: str, problems: list[str] | None = None) -> CheckpointInfo:
    """The checkpoint that `reference` means; see the module's docstring for its forms.

    For a run, broken checkpoints are passed over, and said so in `problems`. Raises
    CheckpointError, also when a run has checkpoints and none of them is sound.
    """
    direct = _direct(lab, reference)
    if direct is not None:
        return direct
    name, _, which = reference.partition("@")
    run = find_run_folder(lab, name)
    if which in ("", "last"):
        return _newest(run, problems)
    if which == "best":
        return _best(run, problems)
    found = list_checkpoints(run)
    if not which.isdecimal():
        raise CheckpointError(
            f"'{which[:80]}' in '{reference[:200]}' is no checkpoint", "write @best, @last or @STEP"
        )
    saves = [info for info in found if info.step == int(which[:18])]
    if not saves:
        raise CheckpointError(f"run '{run.name}' has no step {which[:18]}", _steps_hint(found))
    return _last_sound(saves, problems)


def _last_sound(saves: list[CheckpointInfo], problems: list[str] | None) -> CheckpointInfo:
    """Of several saves of a step the last sound one. One alone is meant as it is: it may be there
    to be looked at or deleted, and nothing broken is ever loaded."""
    skipped: list[str] = []
    for info in reversed(saves) if len(saves) > 1 else ():
        found = verify(info.path)
        if not found:
            if problems is not None:
                problems.extend(skipped)
            return info
        skipped += found
    return saves[-1]


def _best(run: Path, problems: list[str] | None) -> CheckpointInfo:
    """The sound checkpoint of the lowest validation loss. Losses are believed only from files whose
    hash is right: a flipped bit in one must not make another the best."""
    found, skipped, scored = list_checkpoints(run), [], []
    for info in found:
        try:
            check_facts(info.path)
        except CheckpointError as error:
            skipped.append(error.title)
        else:
            scored += [info] if info.val_loss is not None else []
    for info in sorted(scored, key=lambda info: (info.val_loss, -info.step, -info.time)):
        broken = verify(info.path)
        if not broken:
            if problems is not None:
                problems.extend(skipped)
            return replace(info, best=True)
        skipped += broken
    if skipped:
        raise _none_sound(run, skipped)
    raise CheckpointError(
        f"run '{run.name}' has no checkpoint with a validation loss",
        f"'{run.name}' alone means its newest",
    )


def _none_sound(run: Path, skipped: list[str]) -> CheckpointError:
    return CheckpointError(
        f"run '{run.name}' has no sound checkpoint: {skipped[0]}",
        f"tui-lab checkpoints verify {run.name} names every problem",
    )


def _newest(run: Path, problems: list[str] | None) -> CheckpointInfo:
    info, skipped = newest_verified(run)
    if info is not None:
        if problems is not None:
            problems.extend(skipped)
        return info
    if skipped:
        raise _none_sound(run, skipped)
    raise CheckpointError(
        f"run '{run.name}' has no checkpoint", "it was not saved, or they were deleted"
    )


def _direct(lab: Lab, reference: str) -> CheckpointInfo | None:
    """`run/step_000500`, or a path to a checkpoint's folder; None when it is neither."""
    parent, _, last = reference.rstrip("/").rpartition("/")
    if layout.parse_step_name(last) is None:
        path = _existing(reference)
        is_checkpoint = path is not None and "/" in reference and (path / layout.MANIFEST).is_file()
        return _described(_followed_by_person(path)) if path and is_checkpoint else None
    run = run_folders(lab).get(parent)
    path = run / last if run else _existing(reference)
    if path is not None and path.is_dir():
        return _described(_followed_by_person(path))
    if run:
        raise CheckpointError(f"run '{parent}' has no '{last}'", _steps_hint(list_checkpoints(run)))
    raise CheckpointError(f"there is no checkpoint at '{reference[:200]}'")


def _described(path: Path) -> CheckpointInfo:
    """As `describe`, with `best` judged among the checkpoints beside it."""
    beside = {info.path: info for info in list_checkpoints(path.parent)}
    return beside.get(path) or describe(path)


def _steps_hint(found: list[CheckpointInfo]) -> str:
    steps = sorted({info.step for info in found})
    if not steps:
        return "it has no checkpoints"
    shown = [str(step) for step in steps[-12:]]
    return "it has " + ("…, " if len(steps) > 12 else "") + ", ".join(shown)


def delete(path: Path) -> None:
    """Delete one checkpoint. Raises CheckpointError for anything else, or while its run runs."""
    if path.is_symlink() or not path.is_dir() or layout.parse_step_name(path.name) is None:
        raise CheckpointError(f"'{path}' is not a checkpoint's folder", "nothing was deleted")
    _refuse_shipped_or_running(path.parent)
    _remove(path)


def delete_run(path: Path) -> None:
    """Delete a run and all that is in it. Raises CheckpointError while it runs."""
    if path.is_symlink() or not (path / RUN_FILE).is_file():
        raise CheckpointError(f"'{path}' is not a run's folder", "nothing was deleted")
    _refuse_shipped_or_running(path)
    _remove(path)


def _refuse_shipped_or_running(run: Path) -> None:
    if is_shipped(run):
        raise CheckpointError(
            f"'{run.name}' ships with tui-lab and cannot be deleted", "runs of your own can be"
        )
    status = read_status(run)
    if is_running(status):
        raise CheckpointError(
            f"run '{run.name}' is running (process {status.pid} on {status.host})",
            "stop it first; nothing was deleted",
        )


def _remove(path: Path) -> None:
    try:
        remove(path)
    except OSError as error:
        raise CheckpointError(f"cannot delete '{path}': {error.strerror}") from error
