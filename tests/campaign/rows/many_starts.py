"""Many processes start in one run at the same moment, and many make a run of the same name.

A round is two races. In the first, `tui-lab train --resume RUN` begins in all processes at once:
one may train. It is killed with -9 then, and the next one must be let in. In the second as many
processes begin a new run under one name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.metrics import METRICS_FILE, read_metrics
from engine.run_lock import LOCK_FILE
from tests.campaign.commands import command
from tests.campaign.processes import Forked, make_lab, train
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.kill_nine import BASE, RUN
from tests.campaign.story import differing, story, unreadable

FULL_ROUNDS, AT_ONCE, FEW = 3, 50, 6
LONG, SHORT = 1_000_000, 3  # steps
PATIENCE = 90.0
RESUME = ["train", "--resume", RUN]
VALUES = BASE | {"sample.every": 0, "train.eval_every": 0, "save.every": 20}


def run(trials: int, folder: Path, progress: Progress) -> Result:
    result = Result()
    found: dict[str, list[float]] = {"told": [], "trained": [], "seconds": [], "folders": []}
    at_once = AT_ONCE if trials >= FULL_ROUNDS else FEW
    alone = 0.0
    for number in range(trials):
        place = folder / str(number)
        race = Race(place, at_once)
        race.resume_at_once()
        alone = max(alone, race.come_second())
        race.take_over()
        race.begin_at_once()
        for name, values in found.items():
            values += race.found[name]
        result.failures += [f"round {number}: {said}" for said in race.problems]
        result.trials += 1
        progress(result.trials)
        if not race.problems:
            shutil.rmtree(place)
    result.figures = {
        "processes at once in one run": at_once,
        "that trained, by round": ", ".join(f"{count:.0f}" for count in found["trained"]),
        "told by whom, in all": len(found["told"]),
        "seconds until told, all at once: median": statistics.median(found["seconds"]),
        "seconds until told, all at once: longest": max(found["seconds"]),
        "seconds until a lone second start is told, Python's own start included": alone,
        "steps written twice": sum("twice" in said for said in result.failures),
        "new runs of one name at once, by round": ", ".join(f"{n:.0f}" for n in found["folders"]),
    }
    return result


class Race:
    """One round, in a lab of its own."""

    def __init__(self, place: Path, at_once: int) -> None:
        self.place, self.at_once = place, at_once
        self.path = place / "checkpoints" / RUN
        self.problems: list[str] = []
        self.found: dict[str, list[float]] = {
            name: [] for name in ("told", "trained", "seconds", "folders")
        }
        make_lab(place)
        first = Forked(train, place, RUN, VALUES | {"train.max_steps": LONG})
        if not any(said.what == "saved" for said in first.listen()):
            raise RuntimeError(f"no run to resume: {first.told[-1]}")
        first.kill()
        self.winner: Forked | None = None

    def resume_at_once(self) -> None:
        """One trains; every other is told its process, host, and since when, and exits with 2."""
        moment = time.monotonic() + 0.5 + 0.03 * self.at_once
        starts = [self._resume(number, moment) for number in range(self.at_once)]
        waiting, ended = dict(enumerate(starts)), {}
        while len(waiting) > 1 and time.monotonic() < moment + PATIENCE:
            for number, start in list(waiting.items()):
                if start.ended():
                    ended[number] = (waiting.pop(number).finish(), time.monotonic() - moment)
            time.sleep(0.01)
        self.found["trained"].append(len(waiting))
        if len(waiting) != 1:
            self.problems.append(f"{len(waiting)} of {self.at_once} processes train")
            for start in waiting.values():
                start.kill()
            return
        ((_, self.winner),) = waiting.items()
        for number, (code, seconds) in ended.items():
            self._judge(code, self._output(number).read_text())
            self.found["seconds"].append(seconds)

    def come_second(self) -> float:
        """A start by itself, from the shell: seconds until it is told."""
        if self.winner is None:
            return 0.0
        self._until_training()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tui_lab", *RESUME],
            env=os.environ | {"TUI_LAB_DIR": str(self.place)},
            capture_output=True,
            text=True,
            check=False,
        )
        self._judge(done.returncode, done.stderr)
        return time.monotonic() - started

    def take_over(self) -> None:
        """The owner is killed; its lock, still there, stops nobody."""
        if self.winner is None:
            return
        self.winner.kill()
        owner = json.loads((self.path / LOCK_FILE).read_text())
        if owner["pid"] != self.winner.process.pid:
            self.problems.append(f"the lock names {owner}, not {self.winner.process.pid}")
        self.winner = self._resume(self.at_once, 0.0)
        if self._until_training():
            os.kill(self.winner.process.pid, signal.SIGTERM)
            if (code := self.winner.finish()) != 143:
                self.problems.append(f"ended by SIGTERM with {code}")
        self.problems += unreadable(self.path, torn=2)
        self.problems += written_twice(self.path / METRICS_FILE)

    def begin_at_once(self) -> None:
        """Each gets a folder of its own, and all train the same."""
        before = set((self.place / "checkpoints").iterdir())
        values = VALUES | {"train.max_steps": SHORT}
        starts = [Forked(train, self.place, "same", values) for _ in range(self.at_once)]
        codes = [start.finish() for start in starts]
        made = set((self.place / "checkpoints").iterdir()) - before
        self.found["folders"].append(len(made))
        if any(codes):
            self.problems.append(f"{sum(map(bool, codes))} new runs of one name failed")
        numbered = {"same", *(f"same-{number}" for number in range(2, self.at_once + 1))}
        if {path.name for path in made} != numbered:
            self.problems.append(f"{self.at_once} new runs made {len(made)} folders")
        stories = [story(path) for path in sorted(made)]
        for path, told in zip(sorted(made), stories, strict=True):
            self.problems += [f"{path.name}: {name}" for name in differing(told, stories[0])]
            self.problems += written_twice(path / METRICS_FILE)

    def _resume(self, number: int, moment: float) -> Forked:
        return Forked(command, self.place, RESUME, str(self._output(number)), moment)

    def _output(self, number: int) -> Path:
        return self.place / f"output-{number}.txt"

    def _judge(self, code: int, said: str) -> None:
        assert self.winner is not None
        by_whom = f"in use by process {self.winner.process.pid} on {socket.gethostname()} since 20"
        if code != 2 or by_whom not in said:
            self.problems.append(f"came second, and ended with {code}: {said[-300:]!r}")
        else:
            self.found["told"].append(1)

    def _until_training(self) -> bool:
        """Wait until the owner has taken some steps; says whether it has."""
        assert self.winner is not None
        before = self._newest()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.winner.ended():
            if self._newest() > before + 5:
                return True
            time.sleep(0.05)
        self.problems.append(f"nobody trains after {before:.0f} steps")
        return False

    def _newest(self) -> float:
        steps = read_metrics(self.path)["step"]
        return float(steps[-1]) if len(steps) else 0.0


def written_twice(path: Path) -> list[str]:
    """Steps of a metrics file that do not follow the one before, resumes aside."""
    problems, last = [], 0
    for line in path.read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        if "resumed" in record:
            last = record["resumed"]
        elif "loss" in record:
            if record["step"] != last + 1:
                problems.append(f"step {record['step']} after {last}: written twice, or left out")
            last = record["step"]
    return problems


ROW = Row(
    number="17",
    fault="50 processes start at once in one run, and under one new name; the owner is killed",
    must="One trains, the others exit with 2 and are told process, host and since when; no step is "
    "written twice; the lock of a dead owner stops nobody; every new run has its own folder.",
    slice=1,
    full=FULL_ROUNDS,
    run=run,
)
