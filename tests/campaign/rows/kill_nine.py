"""kill -9 of training processes, at moments drawn from a whole run or from inside a save.

A trial is one kill. A run is killed one to three times, each time resumed by another process, and
then trained to its end and compared with a run of the same configuration that nobody disturbed.
The parent alone judges: from the files, and from what the process had promised when it died.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.checkpoints import newest_verified
from engine.checkpoints.layout import checkpoint_folders
from engine.metrics import read_events
from engine.status import STATUS_FILE
from tests.campaign import tiny
from tests.campaign.processes import Forked, Told, make_lab, train
from tests.campaign.row import Progress, Result, Row
from tests.campaign.story import differing, story, unreadable

AT_ONCE = 2
AIMED = 0.5  # share of the kills that wait for a save
STEPS = 10
RUN = "run"

BASE = tiny.BASE | {
    "schedule.warmup_steps": 3,
    "train.accumulate": 2,
    "train.max_steps": STEPS,
    "train.eval_tokens": 0,
    "sample.every": 3,
    "sample.max_tokens": 4,
}
KINDS: dict[str, dict[str, Any]] = {
    "rolling": {},
    "all": {"save.policy": "all", "save.every": 3, "train.eval_every": 2},
    "bfloat16": {"train.precision": "bfloat16", "data.tokenizer": "bytes"},
    "a save a step": {"save.every": 1, "train.accumulate": 1, "model.dropout": 0},
}


@dataclass
class Kind:
    """One configuration: how its run ends when nobody disturbs it, and how long things take."""

    name: str
    values: dict[str, Any]
    story: dict[str, Any] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=15))
    saving: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    saves: int = 0

    def learn(self, child: Forked) -> None:
        """Durations from a run that went to its end, on a machine that is sometimes busy."""
        self.seconds.append(child.told[-1].at - child.started)
        begins = [said.at for said in child.told if said.what == "writing"]
        ends = [said.at for said in child.told if said.what == "settled"]
        self.saving.extend(end - begin for begin, end in zip(begins, ends, strict=False))
        self.saves = max(self.saves, len(begins))


@dataclass
class Tally:
    """What all chains together have found; shared by the workers."""

    trials: int
    kinds: list[Kind]
    lock: threading.Lock = field(default_factory=threading.Lock)
    figures: Counter[str] = field(default_factory=Counter)
    where: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    chains: int = 0
    kills: int = 0


def run(trials: int, folder: Path, progress: Progress) -> Result:
    kinds = [Kind(name, BASE | changes) for name, changes in KINDS.items()]
    for kind in kinds[: max(1, trials // 3)]:
        _undisturbed(kind, folder / "reference")
    tally = Tally(trials, [kind for kind in kinds if kind.story])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        workers = [pool.submit(_work, tally, folder, progress) for _ in range(AT_ONCE)]
    for worker in workers:
        worker.result()
    inside = tally.where.pop("saving", 0)
    places = ", ".join(f"{name} {count:,}" for name, count in tally.where.most_common())
    figures = {
        "kills": tally.kills,
        "of these aimed at a save": tally.figures["aimed"],
        "of all, inside a save": inside,
        "of the others, by what the run was doing": places,
        "unusable runs": tally.figures["unusable"],
        "acknowledged saves lost": tally.figures["lost"],
        "runs trained to their end after one to three kills": tally.figures["ended"],
        "of these equal to the undisturbed run to the last bit": tally.figures["equal"],
    }
    return Result(tally.kills, tally.failures, figures)


def _undisturbed(kind: Kind, place: Path) -> None:
    """The run that all killed ones of this kind must become."""
    shutil.rmtree(place, ignore_errors=True)
    make_lab(place)
    child = Forked(train, place, RUN, kind.values)
    if child.finish():
        raise RuntimeError(f"the undisturbed run failed: {child.told[-1]}")
    kind.learn(child)
    kind.story = story(place / "checkpoints" / RUN)
    kind.folders = {path.name for *_, path in checkpoint_folders(place / "checkpoints" / RUN)}
    shutil.rmtree(place)


def _work(tally: Tally, folder: Path, progress: Progress) -> None:
    while True:
        with tally.lock:
            if tally.kills >= tally.trials:
                return
            number, tally.chains = tally.chains, tally.chains + 1
        kind = tally.kinds[number % len(tally.kinds)]
        place = folder / f"chain-{number}"
        chain = Chain(kind, place, random.Random(number), tally)
        try:
            problems = chain.carry_out()
        except Exception as error:  # a trial that cannot be judged has not shown what it must
            problems = [f"{type(error).__name__}: {error}"]
        with tally.lock:
            tally.failures += [f"chain {number} ({kind.name}): {said}" for said in problems]
            progress(min(tally.kills, tally.trials))
        if not problems:
            shutil.rmtree(place)


class Chain:
    """One run, killed up to three times and brought to its end."""

    def __init__(self, kind: Kind, place: Path, rng: random.Random, tally: Tally) -> None:
        self.kind, self.place, self.rng, self.tally = kind, place, rng, tally
        self.path: Path | None = None  # the run's folder, once there is one to resume
        self.promised = -1  # the newest step that the run said was saved
        self.written = 0  # checkpoints so far
        self.kills, self.aimed = 0, False
        self.completed = False  # all steps are made, and saved
        self.ended = False  # and its process came to its end by itself
        self.problems: list[str] = []

    def carry_out(self) -> list[str]:
        make_lab(self.place)
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            child = self._start()
            if self._aim(child) and child.kill():
                self._after_a_kill(child)
            else:
                self._to_its_end(child)
            if self.completed or self.problems:
                break
        if not self.completed and not self.problems:
            self._to_its_end(self._start())
        if not self.problems:
            self._compare()
        return self.problems

    def _start(self) -> Forked:
        """Resume the run, or start one where the last kill left nothing to resume."""
        self.folders = self._folders()
        if self.path is not None:
            return Forked(train, self.place, self.path.name, None)
        return Forked(train, self.place, RUN, self.kind.values)

    def _folders(self) -> set[Path]:
        return set((self.place / "checkpoints").iterdir())

    def _aim(self, child: Forked) -> bool:
        """Wait for the moment to kill; False when the run came to its end before."""
        self.aimed = self.rng.random() < AIMED
        if not self.aimed:
            span = statistics.median(self.kind.seconds)
            return self._wait(child, child.started + self.rng.uniform(0, span))
        which = self.rng.randint(1, max(1, self.kind.saves - self.written))
        for said in child.listen():
            which -= said.what == "writing"
            if not which:
                span = statistics.median(self.kind.saving)
                return self._wait(child, said.at + self.rng.uniform(0, span))
        return False

    def _wait(self, child: Forked, moment: float) -> bool:
        for _ in child.listen(until=moment):
            pass
        return not child.ended()

    def _after_a_kill(self, child: Forked) -> None:
        """What the dead process left must be good for everything that it had promised."""
        self.kills += 1
        last = child.last("writing", "durable", "settled")
        inside = last is not None and last.what != "settled"
        with self.tally.lock:
            self.tally.kills += 1
            self.tally.figures["aimed"] += self.aimed
            self.tally.where["saving" if inside else _doing(child.told)] += 1
        new = self._folders() - self.folders
        path = self.path or next(iter(new), None)
        self.written += sum(said.what == "durable" for said in child.told)
        saved = [said.step for said in child.told if said.what == "saved"]
        if path is not None:
            self.problems += unreadable(path, torn=self.kills)
            saved += [record["step"] for record in read_events(path, ["checkpoint_saved"])]
        self.promised = max(saved, default=self.promised)
        info, broken = newest_verified(path) if path else (None, [])
        self.problems += [f"a checkpoint is broken: {said}" for said in broken]
        if self.promised > (info.step if info else -1):
            self._count("lost")
            self.problems.append(f"step {self.promised} was said to be saved, {info} is there")
        if info is None:
            self._nothing_to_resume(path.name if path else RUN)
        else:
            self.path, self.completed = path, info.step == STEPS

    def _nothing_to_resume(self, name: str) -> None:
        """Killed before its first save: resuming must say that, and leave it at that."""
        child = Forked(train, self.place, name, None)
        if child.finish() == 0 or not child.told:
            self.problems.append(f"resumed '{name}', which has no checkpoint")
        elif not any(why in child.told[-1].text for why in ("no checkpoint", "unknown run")):
            self.problems.append(f"resuming '{name}' without a checkpoint: {child.told[-1].text}")

    def _to_its_end(self, child: Forked) -> None:
        code = child.finish()
        self.completed = self.ended = True
        if code:
            self._count("unusable")
            self.problems.append(f"ended with {code}: {child.told[-1].text if child.told else ''}")
        elif self.path is None:
            self.kind.learn(child)
        if self.path is None:
            self.path = next(iter(self._folders() - self.folders), None)

    def _compare(self) -> None:
        """The run's files are those of the run that nobody disturbed."""
        assert self.path is not None
        self._count("ended")
        other = differing(story(self.path), self.kind.story)
        self.problems += [f"differs from the undisturbed run: {name}" for name in other]
        self._count("equal", not other)
        if self.ended:  # else killed after its last save, and nobody has opened the folder since
            state = json.loads((self.path / STATUS_FILE).read_text())["state"]
            if state != "finished":
                self.problems.append(f"at its end the run's status is {state}")
            names = {path.name for path in self.path.iterdir()}
            left = [name for name in names if name.startswith(".")]
            self.problems += [f"left in the run's folder: {name}" for name in left]
            if not self.kind.folders <= names:
                self.problems.append(f"checkpoints missing: {self.kind.folders - names}")
        self.problems += unreadable(self.path, torn=self.kills)

    def _count(self, name: str, amount: int = 1) -> None:
        with self.tally.lock:
            self.tally.figures[name] += amount


def _doing(told: list[Told]) -> str:
    """What a process that was not inside a save was doing when it said its last word."""
    what = told[-1].what if told else "starting"
    return "training" if what in ("begun", "step", "settled", "saved") else what


ROW = Row(
    number="1",
    fault="kill -9 at any moment, half of them aimed inside saves",
    must="The run goes on from its newest acknowledged save or a later one, and ends in the same "
    "weights, moments, random state and losses as a run that was never killed, to the last bit.",
    slice=6,
    full=2000,
    run=run,
)
