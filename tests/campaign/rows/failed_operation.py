"""Every file operation of a save fails, and every one is the last thing that the process does.

A save is carried out once to number its operations, those of retention among them; then once for
each operation and each way of failing. A process that dies is a real child that ends inside the
operation, or half-way through it.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints import list_checkpoints, newest_verified, verify
from engine.checkpoints.background import BackgroundSaver
from engine.checkpoints.load import load_training, load_weights
from engine.checkpoints.retention import Retention, clean_leftovers
from engine.checkpoints.save import SaveError, save, write_checkpoint
from engine.checkpoints.snapshot import Memory
from tests.campaign.file_operations import Operation, Watching, unflushed
from tests.campaign.row import Progress, Result, Row

FAILURES = ("EIO", "ENOSPC", "EIO from there on", "takes half")
DEATHS = ("dies before", "dies half-way", "dies after")
NEW = 90  # marks the tensors of the save under test


@dataclass(frozen=True)
class Saved:
    """One checkpoint: its step, what marks its tensors, and how it was saved."""

    step: int
    mark: int
    kind: str = "rolling"
    val_loss: float | None = None


@dataclass(frozen=True)
class Scenario:
    """What is in the run's folder, what is then saved, and what must be there whatever happens."""

    name: str
    before: tuple[Saved, ...]
    new: Saved
    precious: tuple[int, ...] = ()  # marks
    policy: str = "rolling"


SCENARIOS = (
    Scenario("a first save", (), Saved(10, NEW)),
    Scenario("a second save", (Saved(10, 1),), Saved(20, NEW)),
    Scenario("a step saved again", (Saved(10, 1, "manual"),), Saved(10, NEW, "manual")),
    Scenario(
        "a save that deletes three",
        (
            Saved(10, 1, "manual"),
            Saved(20, 2, "rolling", 1.0),
            Saved(30, 3, "rolling", 2.0),
            Saved(40, 4, "final"),
            Saved(50, 5),
        ),
        Saved(60, NEW),
        (1, 2),
    ),
    Scenario(
        "a save beside periodic ones",
        (Saved(10, 1, "periodic", 2.0), Saved(20, 2, "best", 1.5), Saved(30, 3, "periodic")),
        Saved(40, NEW, "best", 1.0),
        (1, 3),
        "all",
    ),
)


def tensors(mark: int) -> dict[str, torch.Tensor]:
    """What is told apart by `mark`, to the last byte."""
    generator = torch.Generator().manual_seed(mark)
    return {"w": torch.randn(40, 8, generator=generator), "mark": torch.tensor([mark])}


def given(saved: Saved) -> tuple[Any, ...]:
    meta = {"step": saved.step, "tokens": saved.step, "val_loss": saved.val_loss}
    return tensors(saved.mark), tensors(saved.mark + 1000), {"mark": saved.mark}, meta


def prepare(scenario: Scenario, run: Path) -> None:
    run.mkdir()
    for saved in scenario.before:
        memory = Memory().take(*given(saved), saved.kind)
        write_checkpoint(run, memory)


def mark_of(path: Path) -> int:
    """The mark of a checkpoint of which every byte is as it was given; -1 for any other."""
    (info,) = [info for info in list_checkpoints(path.parent) if info.path == path]
    weights, training = load_weights(info), load_training(info)
    mark = int(weights["mark"])
    for found, wanted in ((weights, tensors(mark)), (training.tensors, tensors(mark + 1000))):
        if found.keys() != wanted.keys():
            return -1
        if not all(torch.equal(found[name], wanted[name]) for name in wanted):
            return -1
    return mark if training.state == {"mark": mark} else -1


def problems(scenario: Scenario, run: Path, acknowledged: bool) -> list[str]:
    """What is not as it must be in the run's folder. `acknowledged`: "saved" was said."""
    found = []
    info, skipped = newest_verified(run)
    before = scenario.before[-1].mark if scenario.before else None
    newest = mark_of(info.path) if info else None
    if newest != NEW and (acknowledged or newest != before):
        found.append(f"the newest is {newest}, acknowledged: {acknowledged}")
    if skipped:
        found.append(f"it counts as a checkpoint and is none: {skipped[0]}")
    there = set()
    for listed in list_checkpoints(run):
        if verify(listed.path):
            found.append(f"'{listed.path.name}' is half a checkpoint")
        else:
            there.add(mark_of(listed.path))
    found += [f"{mark} was deleted" for mark in scenario.precious if mark not in there]
    return found


class Struck:
    """Lets operations pass up to number `point`, and makes that one fail or be the last."""

    def __init__(self, point: int, how: str) -> None:
        self.point, self.how = point, how
        self.seen: list[Operation] = []

    def __call__(self, operation: Operation, carry_out: Callable[..., Any]) -> Any:
        self.seen.append(operation)
        number = len(self.seen) - 1
        if number < self.point or (number > self.point and self.how != "EIO from there on"):
            return carry_out()
        half = len(operation.data) // 2
        if self.how.startswith("dies"):
            with suppress(OSError):
                if self.how == "dies after":
                    carry_out()
                elif self.how == "dies half-way":
                    carry_out(half)
            os._exit(9)
        if self.how == "takes half":
            return carry_out(half)
        if operation.what == "close":  # the descriptor is gone all the same
            carry_out()
        code = errno.ENOSPC if self.how == "ENOSPC" else errno.EIO
        raise OSError(code, os.strerror(code), operation.path)


def fail(scenario: Scenario, run: Path, struck: Struck) -> list[str]:
    """The operation fails: what was there loads, and the save lands once operations work again."""
    prepare(scenario, run)
    told: list[str] = []
    saver = BackgroundSaver(
        run,
        policy=scenario.policy,
        on_saved=lambda result: told.append("saved"),
        on_failed=lambda error, again: told.append("failed"),
    )
    with Watching(run, struck):
        saver.snapshot(*given(scenario.new), scenario.new.kind)
        while saver.busy:
            saver._thread.join()  # type: ignore[union-attr]
    found = problems(scenario, run, "saved" in told)
    if told.count("failed") > 1 or not told:
        found.append(f"one word is due, not {told}")
    if not saver.wait():
        found.append("the second try failed as well")
    found += problems(scenario, run, True)
    later = Saved(100, NEW)
    saver.snapshot(*given(later), later.kind)  # sweeps what could not be removed
    if not saver.wait():
        found.append("the save after it failed")
    found += [f"'{path.name}' is left" for path in run.glob(".tmp-*")]
    return found


def die(scenario: Scenario, run: Path, struck: Struck) -> list[str]:
    """A child ends inside the operation: the next owner of the run finds the old or the new."""
    prepare(scenario, run)
    memory = Memory().take(*given(scenario.new), scenario.new.kind)
    retention = Retention(run, scenario.policy)
    listening, saying = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with Watching(run, struck):
                result = write_checkpoint(run, memory)
                os.write(saying, b"saved")
                retention.apply(result.path)
        finally:
            os._exit(1)  # it was to die before
    os.close(saying)
    _, status = os.waitpid(child, 0)
    acknowledged = os.read(listening, 10) == b"saved"
    os.close(listening)
    if os.waitstatus_to_exitcode(status) != 9:
        return [f"the child ended with {os.waitstatus_to_exitcode(status)}"]
    found = problems(scenario, run, acknowledged)
    clean_leftovers(run)
    found += problems(scenario, run, acknowledged)
    found += [f"'{path.name}' is left" for path in run.glob(".tmp-*")]
    try:
        save(run, *given(scenario.new), kind=scenario.new.kind, policy=scenario.policy)
    except SaveError as error:
        found.append(f"the next save failed: {error}")
    return found + problems(scenario, run, True)


def operations(scenario: Scenario, folder: Path) -> list[Operation]:
    """All operations of the scenario's save, in their order."""
    struck = Struck(1 << 30, "")
    prepare(scenario, folder / "counted")
    with Watching(folder / "counted", struck):
        save(
            folder / "counted", *given(scenario.new), kind=scenario.new.kind, policy=scenario.policy
        )
    shutil.rmtree(folder / "counted")
    return struck.seen


def points(folder: Path) -> list[tuple[Scenario, int, Operation, str]]:
    """Every operation of every scenario with every way of failing that it has."""
    found = []
    for scenario in SCENARIOS:
        for number, operation in enumerate(operations(scenario, folder)):
            for how in (*FAILURES, *DEATHS):
                if operation.what == "write" or how not in ("takes half", "dies half-way"):
                    found.append((scenario, number, operation, how))
    return found


def run(trials: int, folder: Path, progress: Progress) -> Result:
    with unflushed():
        return _run(trials, folder, progress)


def _run(trials: int, folder: Path, progress: Progress) -> Result:
    every = points(folder)
    chosen = every
    if trials < len(every):
        chosen = random.Random(trials).sample(every, trials)
    failures: list[str] = []
    ways: Counter[str] = Counter()
    for done, (scenario, number, operation, how) in enumerate(chosen, 1):
        place = folder / "run"
        carry_out = die if how in DEATHS else fail
        said = carry_out(scenario, place, Struck(number, how))
        where = f"{scenario.name}, operation {number} ({operation.what} "
        where += f"{Path(operation.path).name}), {how}"
        failures += [f"{where}: {problem}" for problem in said]
        ways["the process dies" if how in DEATHS else "it fails"] += 1
        shutil.rmtree(place)
        progress(done)
    figures = {
        "operations of the five saves": len({(point[0].name, point[1]) for point in every}),
        "points tried": len(chosen),
        **{f"of these {way}": count for way, count in sorted(ways.items())},
        "checkpoints lost": len({line.partition(": ")[0] for line in failures}),
    }
    return Result(len(chosen), failures, figures)


ROW = Row(
    number="2",
    fault="every file operation of a save fails, and every one is the last",
    must="the old or the new checkpoint loads, what was said to be saved is there, what matters is "
    "never deleted, nothing half counts as a checkpoint, and the save lands when it is tried again",
    slice=80,
    full=3_000,
    run=run,
)
