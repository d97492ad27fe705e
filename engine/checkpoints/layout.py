"""Where things lie in a run's folder, what they are called, and which checkpoints are there.

    checkpoints/<run>/step_000500/    model.safetensors  training.safetensors  state.json
                                      meta.json  manifest.json

The manifest is written last and the folder gets its name only then, so a folder with this name
and a manifest was once complete. A step saved a second time (resume, then save at once) gets a
folder of its own, `step_000500-2`: no name is ever renamed over, so at no moment is there no good
checkpoint. Readers take the highest number of a step. Knows no torch, and loads no weights.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoints.tensors import read_json
from engine.errors import CheckpointError, InputError
from engine.text import visible

MODEL = "model.safetensors"
TRAINING = "training.safetensors"
STATE = "state.json"
META = "meta.json"
MANIFEST = "manifest.json"

# Digits are ASCII: others look like a step that is there already.
_STEP = re.compile(r"step_([0-9]{6,15})(?:-([0-9]{1,6}))?")
_TEMPORARY = re.compile(r"\.tmp-.*-([0-9]{1,10})")


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint as its small files tell it.

    `complete`: the manifest is there and every file has the size it names; whether the bytes are
    sound only `verify` can tell. `best`: the lowest validation loss among the run's complete ones.
    `line`: how often the run had gone back to an older checkpoint than its newest when this one was
    saved; None when its meta data cannot be read.
    """

    run: str
    path: Path
    step: int
    tokens: int
    val_loss: float | None
    kind: str
    best: bool
    bytes: int
    time: float
    complete: bool
    line: int | None = 0


def check_name(name: str) -> str:
    """`name` if a run may be called that. Raises InputError saying what is wrong with it."""
    if not name:
        why = "it is empty"
    elif len(name.encode(errors="replace")) > 100:
        why = "it is longer than 100 bytes"
    elif name[0] in "-.":
        why = f"it begins with '{name[0]}'"
    elif any(character in name for character in "/\\@"):
        why = "it holds a '/', '\\' or '@'"
    elif name != name.strip():
        why = "it begins or ends with a space"
    elif visible(name, lines=False) != name:
        why = "it holds control characters"
    else:
        return name
    shown = name if len(name) <= 100 else name[:100] + "…"
    raise InputError(
        f"'{shown}' cannot be a run's name: {why}", "letters, digits, - and _ are fine"
    )


def step_name(step: int, again: int = 1) -> str:
    """The folder's name for the `again`-th save of `step`."""
    return f"step_{step:06}" + (f"-{again}" if again > 1 else "")


def parse_step_name(name: str) -> tuple[int, int] | None:
    """(step, again) of a checkpoint folder's name; None for any other name."""
    match = _STEP.fullmatch(name)
    return (int(match[1]), int(match[2] or 1)) if match else None


def temporary_owner(name: str) -> int | None:
    """The process that made a temporary folder; None for a name that is not one."""
    match = _TEMPORARY.fullmatch(name)
    return int(match[1]) if match else None


def checkpoint_folders(run_path: Path) -> list[tuple[int, int, Path]]:
    """(step, again, path) of each checkpoint folder, oldest first; links are left out."""
    found = []
    try:
        with os.scandir(run_path) as entries:
            for entry in entries:
                numbers = parse_step_name(entry.name)
                if numbers and entry.is_dir(follow_symlinks=False):
                    found.append((*numbers, Path(entry.path)))
    except OSError:
        return []
    return sorted(found)


def list_checkpoints(run_path: Path) -> list[CheckpointInfo]:
    """The run's checkpoints, oldest first; broken ones are listed too, as not complete."""
    found = [describe(path) for _, _, path in checkpoint_folders(run_path)]
    scored = [info for info in found if info.complete and info.val_loss is not None]
    if not scored:
        return found
    best = min(scored, key=lambda info: (info.val_loss, -info.step, -info.time))
    return [replace(info, best=info is best) for info in found]


def describe(path: Path) -> CheckpointInfo:
    """One checkpoint from its folder, its meta file and its manifest; never raises for broken."""
    step = (parse_step_name(path.name) or (0, 0))[0]
    try:
        meta = read_json(path / META)
    except CheckpointError:
        meta = {}
    sizes = _sizes(path)
    return CheckpointInfo(
        run=path.parent.name,
        path=path,
        step=step or as_int(meta.get("step")),
        tokens=as_int(meta.get("tokens")),
        val_loss=as_float(meta.get("val_loss")),
        kind=str(meta.get("kind", ""))[:40],
        best=False,
        bytes=sum(sizes.values()),
        time=as_float(meta.get("time")) or _modified(path),
        complete=bool(meta) and _complete(path, sizes),
        line=as_int(meta.get("line")) if meta else None,
    )


def newest_first(run_path: Path) -> list[Path]:
    """The run's checkpoint folders in the order in which a resume tries them: the line that the run
    went on last, whatever its steps, and in each line the highest step. One whose meta data cannot
    be read comes first, so that it is not passed over in silence."""

    def rank(found: tuple[int, int, Path]) -> tuple[float, int, int]:
        step, again, path = found
        line = describe(path).line
        return (math.inf if line is None else line, step, again)

    return [path for _, _, path in sorted(checkpoint_folders(run_path), key=rank, reverse=True)]


def line_after(run_path: Path, resumed_from: CheckpointInfo) -> int:
    """The line of what is saved after a resume: another one when it went back."""
    here = (resumed_from.line or 0, resumed_from.step)
    others = [(info.line or 0, info.step) for info in list_checkpoints(run_path)]
    return max(others)[0] + 1 if any(other > here for other in others) else here[0]


def _complete(path: Path, sizes: dict[str, int]) -> bool:
    try:
        files = read_json(path / MANIFEST).get("files")
    except CheckpointError:
        return False
    if not isinstance(files, dict) or MODEL not in files or META not in files:
        return False
    return all(
        isinstance(promised, dict) and promised.get("bytes") == sizes.get(name, -1)
        for name, promised in files.items()
    )


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of each plain file in a folder (not below it)."""
    try:
        with os.scandir(path) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if entry.is_file(follow_symlinks=False)
            }
    except OSError:
        return {}


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def as_int(value: Any) -> int:
    """A whole number out of a file that anybody may have written; 0 for anything else."""
    return value if type(value) is int and 0 <= value < 2**63 else 0


def as_float(value: Any) -> float | None:
    """A finite number out of a file that anybody may have written; None for anything else."""
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value if isinstance(value, float) and math.isfinite(value) else None
