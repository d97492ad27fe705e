"""The power goes at any moment: a run is made and saved five times, every file operation recorded,
and each state that a file system may then hold is put on the disk and loaded.

No machine is switched off: kill -9 cannot test a flush, and a switch tests one state a time. That
the checker can fail is shown by the same recording without its flushes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import tokenizers
from engine.checkpoints import find_checkpoint, verify
from engine.checkpoints.save import save
from engine.config import Config
from engine.errors import EngineError
from engine.lab import Lab
from engine.runs import RunFolder
from engine.tokenizers.char import CharTokenizer
from tests.campaign.crash_states import Recording, Tree, build
from tests.campaign.file_operations import Operation, Watching, unflushed
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.failed_operation import Saved, given, mark_of

SAVES = (
    Saved(10, 1, "manual"),
    Saved(20, 2, "rolling", 2.0),
    Saved(30, 3, "rolling", 3.0),
    Saved(30, 4, "rolling", 1.5),  # the step saved again, and the best
    Saved(40, 5, "final"),
)
CONFIG = Config().with_values({"train.max_steps": 100})
KEPT = {1}  # marks that no later save may cost
MOST = 512  # states of one moment; where there are more, so many drawn at random
WEAKENED = 400  # states of each weakened recording


@dataclass
class Story:
    """What was done to the disk, and after how many operations each save was acknowledged."""

    recording: Recording
    operations: list[Operation]
    acknowledged: list[int]

    def promised(self, end: int) -> int:
        """How many saves were said to be safe before operation `end`."""
        return sum(moment <= end for moment in self.acknowledged)


def record(root: Path) -> Story:
    """Make a run in a new lab and save it, and list all that this does to the disk."""
    root.mkdir()
    operations: list[Operation] = []

    def note(operation: Operation, carry_out: Callable[..., Any]) -> Any:
        result = carry_out()
        operations.append(operation)
        return result

    acknowledged = []
    with Watching(root, note):
        lab = Lab(root)
        with RunFolder.create(lab, "run", CONFIG, {}) as folder:
            CharTokenizer("abc").save(folder.path / "tokenizer")
            for saved in SAVES:
                save(folder.path, *given(saved), kind=saved.kind, policy="rolling")
                acknowledged.append(_durable(operations))
    return Story(Recording.of(root, operations), operations, acknowledged)


def _durable(operations: list[Operation]) -> int:
    """The number of operations when the last save was durable: its run's folder was flushed."""
    last = max(
        number
        for number, operation in enumerate(operations)
        if operation.what == "rename" and Path(operation.target).name.startswith("step_")
    )
    flushes = (
        number
        for number, operation in enumerate(operations)
        if number > last and operation.what == "fsync"
    )
    return next(flushes) + 1


def problem(lab: Lab, promised: int) -> str:
    """Why the newest promised save cannot be gone on with; empty when it can."""
    try:
        info = find_checkpoint(lab, "run")
        marks = {path.name: mark_of(path) for path in info.path.parent.glob("step_*")}
        mark = marks[info.path.name]
        folder = info.path.parent
        with RunFolder.open(lab, folder) as opened:
            opened.config()
            assert opened.identity["name"] == "run"
        tokenizers.load(folder / "tokenizer")
    except EngineError as error:
        return str(error)
    if mark < SAVES[promised - 1].mark:
        return f"save {mark} loads, save {promised} was promised"
    lost = KEPT - {mark for name, mark in marks.items() if not verify(folder / name)}
    return f"save {lost} was deleted" if lost else ""


def examine(
    story: Story,
    recording: Recording,
    trials: int,
    folder: Path,
    progress: Progress,
    most: int = MOST,
) -> tuple[int, dict[str, str]]:
    """How many different states were looked at, and the bad ones: where, and why."""
    bad: dict[str, str] = {}
    seen: set[tuple[int, frozenset[tuple[str, bytes | None]]]] = set()
    moments = list(range(story.acknowledged[0], len(story.operations) + 1))
    rng = random.Random(trials)
    rng.shuffle(moments)  # so that a few trials are spread over the whole story
    for moment in moments:
        promised = story.promised(moment)
        for number, tree in enumerate(recording.states(moment, most, random.Random(moment))):
            key = promised, frozenset(tree.items())
            if key in seen:
                continue
            if len(seen) >= trials:
                return len(seen), bad
            seen.add(key)
            progress(len(seen))
            said = _judge(tree, promised, folder)
            if said:
                bad[f"before operation {moment}, state {number}"] = said
    return len(seen), bad


def _judge(tree: Tree, promised: int, folder: Path) -> str:
    place = folder / "state"
    build(tree, place)
    try:
        return problem(Lab(place), promised)
    finally:
        shutil.rmtree(place)


def without(story: Story, root: Path, what: str) -> Recording:
    """The recording as it would be if, after the first save, this were never flushed."""
    run = root / "checkpoints" / "run"
    kept = []
    for number, operation in enumerate(story.operations):
        path = Path(operation.path)
        kind = "the run's folder" if path == run else "a checkpoint's files"
        if path.parent == run:
            kind = "a checkpoint's folder"
        late = operation.what == "fsync" and number >= story.acknowledged[0]
        kept.append(Operation("nothing", str(path)) if late and kind == what else operation)
    return Recording.of(root, kept)


def run(trials: int, folder: Path, progress: Progress) -> Result:
    with unflushed():
        root = folder / "recorded"
        story = record(root)
        states, bad = examine(story, story.recording, trials, folder, progress)
        figures: dict[str, Any] = {
            "operations recorded": len(story.operations),
            "states": states,
            "bad": len(bad),
        }
        failures = [f"{where}: {why}" for where, why in bad.items()]
        for what in ("the run's folder", "a checkpoint's folder", "a checkpoint's files"):
            weak = without(story, root, what)
            fewer = min(trials, WEAKENED)
            looked_at, found = examine(story, weak, fewer, folder, lambda done: None, most=6)
            figures[f"bad without flushing {what}"] = f"{len(found):,} of {looked_at:,}"
            if not found:
                failures.append(f"the checker finds nothing wrong without flushing {what}")
    return Result(states, failures, figures)


ROW = Row(
    number="3",
    fault="the power goes, at any operation of a save",
    must="whatever the file system then holds, the newest save that was said to be safe loads with "
    "every byte as it was given, with its run's configuration and tokenizer",
    slice=60,
    full=20_000,
    run=run,
)
