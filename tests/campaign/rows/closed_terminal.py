"""The terminal of the real app is closed while it trains; the run is then attached to.

Half of the windows are closed under a process whose controlling terminal they are (SIGHUP), half
under one that gets no signal at all. Commands are forked from a server that has imported torch. No
two trials at once: rates and processor time are measured.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from statistics import median

from engine import control
from engine.checkpoints import newest_verified
from engine.status import read_status
from tests.campaign.commands import make_preset, start
from tests.campaign.pace_of_runs import beside_training, rate
from tests.campaign.processes import CORPUS, Forked, make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.kill_nine import BASE
from tests.campaign.screens import Screen, start_app
from tui_lab.attached import AttachedRun
from tui_lab.state import RunState

RUN = f"tiny-{CORPUS}"
WINDOW = 1.0  # seconds in which a rate is measured; half of it where it is not judged
JUDGED = 10  # trials from which the rate is
SETTLING = 0.7  # seconds for the screen to close
LR = 1.25e-4
"""The rate that an attached person sets."""
SLOWER = 0.02
"""Of the rate before: what the median trial may lose."""
BUSY = 0.05
"""Of a core, beside the training: what a process may use above a headless one."""
STEADY = BASE | {
    "model.n_embd": 64,
    "schedule.kind": "constant",
    "train.max_steps": 1_000_000,
    "train.eval_every": 0,
    "sample.every": 0,
    "save.every": 0,
}


@dataclass
class Found:
    problems: list[str] = field(default_factory=list)
    change: float | None = None  # of the rate, 0.01 is one per cent faster
    busy: float | None = None  # cores that threads beside the training one use


def run(trials: int, folder: Path, progress: Progress) -> Result:
    window = WINDOW if trials >= JUDGED else WINDOW / 2
    headless = _headless(folder / "headless", window)
    result = Result(trials)
    found = []
    for number in range(trials):
        place = folder / str(number)
        found.append(_attempt(number, place, window))
        where = f"trial {number} ({'SIGHUP' if number % 2 == 0 else 'no signal'})"
        result.failures += [f"{where}: {problem}" for problem in found[-1].problems]
        if not found[-1].problems:
            shutil.rmtree(place)
        progress(number + 1)
    changes = [one.change for one in found if one.change is not None]
    busy = [one.busy - headless for one in found if one.busy is not None]
    result.figures = {
        "terminals closed": trials,
        "of these without any signal": trials // 2,
        "runs lost": sum(bool(one.problems) for one in found),
    }
    if changes and busy:
        result.figures |= {
            "change of the rate, median": f"{median(changes):+.1%}",
            "change of the rate, worst": f"{min(changes):+.1%}",
            "cores used beside the training, above a headless run, median": median(busy),
            "cores used beside the training, above a headless run, worst": max(busy),
        }
        if trials >= JUDGED and median(changes) < -SLOWER:
            result.failures.append(f"the median run is {-median(changes):.1%} slower")
        if median(busy) > BUSY:
            result.failures.append(f"a closed terminal costs {median(busy):.2f} cores")
    return result


def _attempt(number: int, place: Path, window: float) -> Found:
    found = Found()
    lab = make_lab(place)
    make_preset(lab, "tiny", STEADY)
    path = place / "checkpoints" / RUN
    screen = Screen()
    terminal = screen.path if number % 2 == 0 else screen.without_session(place)
    child = start_app(place, terminal, "--start", "tiny")
    try:
        hear(child, 50)
        begin = time.time()
        hear_for(child, window + random.Random(number).random() / 2)
        closed = time.time()
        screen.close()
        hear_for(child, SETTLING)
        used, after = beside_training(child.process.pid)[0], time.time()
        hear_for(child, window)
        end = time.time()
        found.busy = (beside_training(child.process.pid)[0] - used) / (end - after)
        if not child.process.is_alive():
            found.problems.append("the process ended with its terminal")
            return found
        before = rate(path, begin, closed)
        found.change = rate(path, after, end) / before - 1.0 if before else None
        found.problems += _steer(child, path)
    except (OSError, TimeoutError, AssertionError) as error:
        found.problems.append(f"{type(error).__name__}: {error}")
    finally:
        screen.close()
        child.kill()
    return found


def _steer(child: Forked, path: Path) -> list[str]:
    """Watch and steer the run as `tui-lab attach` does; what was not shown or not done."""
    run = Watched(AttachedRun(path), child)
    try:
        if not run.becomes(lambda state: state.step > 50 and state.last is not None):
            return ["attached, its steps are not shown"]
        run.put(control.Pause())
        if not run.becomes(lambda state: run.attached.paused):
            return ["it does not pause"]
        run.put(control.SetLearningRate(LR))
        run.put(control.Resume())
        if not run.becomes(lambda state: state.last is not None and isclose(state.last.lr, LR)):
            return ["attached, a step at the rate that was set is not shown"]
        run.put(control.Stop())
        code, run.child = child.finish(), None
        if not run.becomes(lambda state: state.finished is not None):
            return ["attached, its end is not shown"]
        shown = run.state.finished if run.state else None
    finally:
        run.attached.close()
    status, (info, broken) = read_status(path), newest_verified(path)
    problems = [f"ended with {code}"] if code else []
    problems += [f"its state is {status.state}"] if status.state != "stopped" else []
    if info is None or broken or info.step != status.step:
        problems.append(f"step {status.step} is not saved: {info and info.step}, {broken}")
    if shown is None or shown.step != status.step:
        problems.append(f"it ended at step {status.step}, attached shows {shown}")
    return problems


class Watched:
    """What the screen of `tui-lab attach` would know of a run."""

    def __init__(self, attached: AttachedRun, child: Forked) -> None:
        self.attached = attached
        self.child: Forked | None = child
        self.state: RunState | None = None

    def put(self, command: control.Command) -> None:
        self.attached.put(command, "campaign")

    def becomes(self, condition: Callable[[RunState], bool], seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.child is not None:
                hear_for(self.child, 0.05)
            else:
                time.sleep(0.05)
            self.state = self.state or self.attached.take_history()
            if self.state is None:
                continue
            while self.attached.events:
                self.state.apply(self.attached.events.popleft())
            if condition(self.state):
                return True
        return False


def hear(child: Forked, step: int) -> None:
    """Listen until the run has done `step` steps."""
    for said in child.listen():
        if said.what == "step" and said.step >= step:
            return
    raise AssertionError(f"the run ended early: {child.told[-3:]}")


def hear_for(child: Forked, seconds: float) -> None:
    for _ in child.listen(time.monotonic() + seconds):
        pass


def _headless(place: Path, window: float) -> float:
    """Cores that a run without a terminal uses beside its training thread."""
    lab = make_lab(place)
    make_preset(lab, "tiny", STEADY)
    child = start(place, ["train", "--config", "tiny"], place / "output")
    try:
        hear(child, 50)
        hear_for(child, SETTLING)
        used, since = beside_training(child.process.pid)[0], time.monotonic()
        hear_for(child, window)
        return (beside_training(child.process.pid)[0] - used) / (time.monotonic() - since)
    finally:
        child.kill()


ROW = Row(
    number="10",
    fault="the terminal is closed while the app trains in it, with and without SIGHUP",
    must="Training goes on in the same process, as fast as before, using no more of the processor"
    " than a headless run; `attach` shows it, pauses it, sets its rate, resumes and stops it, and"
    " it is saved.",
    slice=1,
    full=100,
    run=run,
    quiet=True,
)
