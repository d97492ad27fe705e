"""SIGTERM and SIGINT to the real command, headless and as the app, in the middle of everything.

Most commands are forked from a server that has imported torch, and are aimed at what the run is
doing by what its files are told; some are executed as a shell would, and are met while Python and
torch are still loading. Afterwards the run is judged by its files, and resumed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import control, spool
from engine.checkpoints import newest_verified
from engine.lab import Lab
from engine.metrics import read_events
from tests.campaign.commands import Executed, PseudoTerminal, make_preset, start
from tests.campaign.processes import Forked, make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.kill_nine import BASE
from tests.campaign.story import unreadable

AT_ONCE = 2
RUN = "tiny-small"
LIMIT = 10.0  # seconds from a signal to the exit, at the 99th percentile
PATIENCE = 60.0
SECONDS = {"starting": 1.0, "preparing": 0.2, "training": 0.1, "compiling": 6.0, "paused": 0.3}
SECONDS |= {"evaluating": 0.2, "sampling": 1.0, "saving": 0.02, "loading Python and torch": 6.0}
"""What a signal is aimed at, and within how many seconds of its beginning it comes."""

IN_THE_LOOP = ("training", "compiling", "paused", "evaluating", "sampling", "saving")

FULL = 160

LONG = BASE | {"train.max_steps": 1_000_000, "train.eval_every": 5, "sample.every": 5}
DOING: dict[str, dict[str, Any]] = {
    "compiling": {"train.compile": True},
    "evaluating": {"train.eval_every": 2, "train.eval_tokens": 0},
    "sampling": {"sample.every": 2, "sample.max_tokens": 3000},
}
"""The configuration that gives each of these something to do."""


@dataclass(frozen=True)
class Trial:
    number: int
    name: str  # SIGTERM or SIGINT
    twice: bool
    app: bool
    aim: str


@dataclass
class Found:
    """What came of one trial. `seconds`: from the (last) signal to the exit."""

    trial: Trial
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    begun: bool = False
    saved: bool = False


def plan() -> list[Trial]:
    """120 SIGTERM (10 of them to executed commands), 30 SIGINT once, 10 twice; mixed."""
    aims = ["starting", "preparing", *IN_THE_LOOP, *IN_THE_LOOP]
    trials = []
    for number in range(FULL):
        name = "SIGTERM" if number < 120 else "SIGINT"
        executed = number < 10
        aim = "loading Python and torch" if executed else aims[number % len(aims)]
        app = not executed and number // len(aims) % 2 == 1
        trials.append(Trial(number, name, number >= 150, app, aim))
    random.Random(11).shuffle(trials)
    kinds = {(trial.name, trial.app, trial.aim): trial for trial in trials}
    first = [
        kinds["SIGTERM", True, "evaluating"],
        kinds["SIGTERM", False, "sampling"],
        kinds["SIGINT", False, "saving"],
    ]
    return first + [trial for trial in trials if trial not in first]


def run(trials: int, folder: Path, progress: Progress) -> Result:
    found: list[Found] = []

    def carry_out(trial: Trial) -> None:
        place = folder / str(trial.number)
        one = Attempt(trial, place)
        try:
            one.carry_out()
        except Exception as error:  # what cannot be judged has not shown what it must
            one.found.problems.append(f"{type(error).__name__}: {error}")
        found.append(one.found)
        progress(len(found))
        if not one.found.problems:
            shutil.rmtree(place)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(carry_out, plan()[:trials]))
    return _summary(found)


def _summary(found: list[Found]) -> Result:
    result = Result(len(found))
    for one in found:
        trial = one.trial
        where = f"trial {trial.number} ({trial.name}{' twice' * trial.twice} while {trial.aim}"
        where += f", {'app' if trial.app else 'headless'})"
        result.failures += [f"{where}: {said}" for said in one.problems]
    for name in ("SIGTERM", "SIGINT"):
        here = [one for one in found if one.trial.name == name and not one.trial.twice]
        begun = [one for one in here if one.begun]
        result.figures |= {
            f"{name}": len(here),
            f"{name}: runs that had begun": len(begun),
            f"{name}: of these saved": sum(one.saved for one in begun),
        }
        result.failures += _too_slow(name, here, result.figures)
    hasty = [one.seconds for one in found if one.trial.twice]
    if hasty:
        result.figures |= {"SIGINT twice": len(hasty), "SIGINT twice: longest": max(hasty)}
    aims = Counter(one.trial.aim for one in found)
    result.figures["aimed at"] = ", ".join(f"{aim} {count}" for aim, count in aims.most_common())
    result.figures["in the app"] = sum(one.trial.app for one in found)
    return result


def _too_slow(name: str, found: list[Found], figures: dict[str, Any]) -> list[str]:
    seconds = sorted(one.seconds for one in found)
    if not seconds:
        return []
    for word, share in (("median", 0.5), ("99th percentile", 0.99), ("longest", 1.0)):
        figures[f"{name}: seconds to the exit, {word}"] = seconds[int(share * (len(seconds) - 1))]
    late = figures[f"{name}: seconds to the exit, 99th percentile"]
    return [f"{name}: 99th percentile {late:.1f} s"] if late >= LIMIT else []


class Attempt:
    """One command, met by a signal."""

    def __init__(self, trial: Trial, place: Path) -> None:
        self.trial, self.place = trial, place
        self.path = place / "checkpoints" / RUN
        self.rng = random.Random(trial.number)
        self.found = Found(trial)
        self.terminal: PseudoTerminal | None = None

    def carry_out(self) -> None:
        trial, problems = self.trial, self.found.problems
        lab = make_lab(self.place, lines=1500 if trial.aim == "evaluating" else 100)
        make_preset(lab, "tiny", LONG | DOING.get(trial.aim, {}))
        child = self._begin()
        try:
            self._aim(child)
            step = self._last_step(child)
            code = self._signal(child)
        finally:
            child.kill()
        if self.terminal:
            problems += self.terminal.wrong()
        self.found.begun = bool(read_events(self.path, ["run_started"]))
        early = -signal.Signals[trial.name]  # Python itself had not come up yet
        expected = {128 - early} if self.found.begun else {128 - early, early}
        if code not in expected:
            problems.append(f"ended with {code}: {self._output()}")
        if not self.found.begun:
            return
        info, broken = newest_verified(self.path)
        self.found.saved = info is not None
        problems += broken + unreadable(self.path)
        if trial.twice:
            return
        if info is None or info.step < step:
            problems.append(f"step {step} was done, {info.step if info else 'nothing'} is saved")
        else:
            self._resume(lab, info.step)

    def _begin(self) -> Forked | Executed:
        arguments = ["train", "--config", "tiny"]
        if self.trial.aim == "loading Python and torch":
            return Executed(self.place, arguments, self.place / "output.txt")
        if self.trial.app:
            self.terminal, arguments = PseudoTerminal(), ["--start", "tiny"]
        return start(self.place, arguments, self.place / "output.txt", self.terminal)

    def _aim(self, child: Forked | Executed) -> None:
        """Come to the moment at which the signal is sent."""
        aim, moment = self.trial.aim, child.started
        if isinstance(child, Forked):
            repeats = aim in IN_THE_LOOP and aim not in ("compiling", "paused")
            which = self.rng.randint(1, 3) if repeats else 1
            awaited = aim if aim in IN_THE_LOOP else "starting"
            moment = 0.0
            for said in child.listen(until=time.monotonic() + PATIENCE):
                if said.what == "step" and said.step == 1 and aim == "paused":
                    spool.send(self.path, control.Pause())
                which -= said.what == awaited
                if not which:
                    moment = said.at
                    break
            if not moment:
                raise RuntimeError(f"never came to be {aim}: {self._output()}")
        if child.outlast(moment + self.rng.uniform(0, SECONDS[aim])):
            raise RuntimeError(f"ended before it was met: {self._output()}")

    def _last_step(self, child: Forked | Executed) -> int:
        """The newest step that was done before the signal."""
        last = child.last("step", "begun") if isinstance(child, Forked) else None
        return last.step if last else 0

    def _signal(self, child: Forked | Executed) -> int:
        number = signal.Signals[self.trial.name]
        for again in range(1 + self.trial.twice):
            if again and child.outlast(time.monotonic() + self.rng.uniform(0.05, 0.5)):
                break
            sent = time.monotonic()
            with suppress(ProcessLookupError):  # it may just have left for the first one
                os.kill(child.process.pid, number)
        if not child.outlast(sent + PATIENCE):
            self.found.problems.append(f"still there {PATIENCE:.0f} s after the signal")
            child.kill()
        self.found.seconds = time.monotonic() - sent
        return child.code()

    def _resume(self, lab: Lab, step: int) -> None:
        """Another process goes on from there; it is stopped in the same way."""
        output = self.place / "resumed.txt"
        child = start(self.place, ["train", "--resume", RUN], output)
        wanted = "begun" if self.trial.aim == "compiling" else "step"
        try:
            heard = (said for said in child.listen(until=time.monotonic() + PATIENCE))
            said = next((said for said in heard if said.what == wanted), None)
            if said is None or said.step != step + (wanted == "step"):
                self.found.problems.append(f"resumed at {said}, not {step}: {_end_of(output)}")
                return
            os.kill(child.process.pid, signal.SIGTERM)
            if not child.outlast(time.monotonic() + PATIENCE) or child.code() != 143:
                self.found.problems.append(f"the resumed run did not stop: {_end_of(output)}")
        finally:
            child.kill()

    def _output(self) -> str:
        if self.terminal:
            return repr(self.terminal.written[-300:])
        return _end_of(self.place / "output.txt")


def _end_of(output: Path) -> str:
    return repr(output.read_text()[-300:]) if output.exists() else "no output"


ROW = Row(
    number="11",
    fault="SIGTERM, SIGINT once and twice: loading, preparing, compiling, training, evaluating, "
    "sampling, saving, paused; headless and in the app",
    must="The last step done is saved and verifies, within 10 s at the 99th percentile; exit 143 "
    "or 130; the terminal is restored; the run can be resumed. A second SIGINT leaves at once.",
    slice=3,
    full=FULL,
    run=run,
)
