"""The wall clock is set a day forward or back in the middle of a run, and again before its resume.

In the training process `time.time` is what is set, for everything that reads it. The run is shown
as the app shows it, listed as `tui-lab runs` lists it, killed, judged by a process with either
clock, resumed under the other, and compared with a run that had one clock.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from engine.status import judged, read_status
from tests.campaign.processes import Forked, make_lab, train
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.kill_nine import BASE, RUN, STEPS
from tests.campaign.story import differing, story, unreadable

DAY = 86_400.0
LONGEST = 600.0  # seconds that no trial takes


def run(trials: int, folder: Path, progress: Progress) -> Result:
    result, listed = Result(), 0
    reference = folder / "reference"
    make_lab(reference)
    if Forked(train, reference, RUN, BASE).finish():
        raise RuntimeError("the run with one clock failed")
    expected = story(reference / "checkpoints" / RUN)
    for number in range(trials):
        rng = random.Random(number)
        jump = rng.choice((-DAY, DAY, -3600.0, 3600.0))
        at, killed = rng.randint(1, 5), rng.randint(6, STEPS - 1)
        place = folder / str(number)
        problems, looks = _trial(place, jump, at, killed, expected)
        listed += looks
        where = f"trial {number} ({jump:+.0f} s at step {at}, killed at {killed})"
        result.failures += [f"{where}: {said}" for said in problems]
        result.trials += 1
        progress(result.trials)
        if not problems:
            shutil.rmtree(place)
    result.figures = {
        "runs whose clock was set": result.trials,
        "looks at the run, as shown and as listed": listed,
        "looks that found something wrong": len(result.failures),
    }
    return result


def _trial(
    place: Path, jump: float, at: int, killed: int, expected: dict[str, Any]
) -> tuple[list[str], int]:
    """(what went wrong, how often the run was looked at)."""
    make_lab(place)
    path = place / "checkpoints" / RUN
    child = Forked(clocked, place, BASE, 0.0, jump, at, killed - 1)
    for said in child.listen():
        if said.what == "step" and said.step == killed:
            child.kill()
            break
    problems = [said.text for said in child.told if said.what == "wrong"]
    looks = sum(said.what == "looked" for said in child.told)
    now = time.time()
    for ahead in (-DAY, 0.0, DAY):
        with mock.patch.object(time, "time", lambda ahead=ahead: now + ahead):
            if (state := judged(read_status(path))) != "crashed":
                problems.append(f"dead, and taken for {state} by a clock {ahead:+.0f} s off")
    child = Forked(clocked, place, None, -jump, jump, killed + 1)
    if code := child.finish():
        problems.append(f"the resumed run ended with {code}")
    problems += [said.text for said in child.told if said.what == "wrong"]
    looks += sum(said.what == "looked" for said in child.told)
    problems += [f"differs: {name}" for name in differing(story(path), expected)]
    return problems + unreadable(path, torn=1), looks


def clocked(
    say: Callable[..., None],
    root: Path,
    values: dict | None,
    ahead: float,
    jump: float,
    at: int,
    saved: int = 0,
) -> None:
    """A run under a clock that is `ahead`, and is set by `jump` at step `at`.

    It does not leave the step `saved` before it has a checkpoint.
    """
    from engine import control, events, peaks
    from engine.checkpoints import list_checkpoints
    from engine.config import Config
    from engine.lab import Lab
    from engine.runs import find_run
    from engine.session import resume_training, run_training
    from tests.campaign import wall
    from tui_lab.state import RunState

    peaks.measured_peak = lambda *asked: 1e12
    lab, state, inbox = Lab(root), RunState(), control.Inbox()
    wall.set_ahead(ahead)

    def emit(event: events.Event) -> None:
        state.apply(event)
        if isinstance(event, events.Failed | events.Alert):
            say("wrong", 0, f"{event.name}: {event.title}")
        if isinstance(event, events.StepDone):
            say("step", event.step)
            for wrong in _as_shown(state) + _as_listed(find_run(lab, RUN)):
                say("wrong", event.step, f"at step {event.step}: {wrong}")
            say("looked", event.step)
            while event.step == saved and not list_checkpoints(lab.checkpoints / RUN):
                time.sleep(0.01)
            if event.step == at:
                wall.set_ahead(ahead + jump)

    if values is None:
        resume_training(lab, RUN, emit=emit, inbox=inbox)
    else:
        run_training(lab, Config().with_values(values), emit=emit, inbox=inbox, name=RUN)


def _as_shown(state: Any) -> list[str]:
    """What is wrong with the run as the app has it."""
    wrong, steps = [], list(state.series.step)
    if steps != sorted(set(steps)):
        wrong.append(f"the chart's steps are {steps}")
    if not (0 < state.last.tokens_per_second < math.inf):
        wrong.append(f"{state.last.tokens_per_second} tokens a second")
    if not 0 <= state.seconds < LONGEST:
        wrong.append(f"it has trained for {state.seconds} s")
    if state.eta is not None and not 0 <= state.eta < LONGEST:
        wrong.append(f"{state.eta} s are left")
    return wrong


def _as_listed(run: Any) -> list[str]:
    """What is wrong with the run in the table of runs."""
    wrong = []
    if run.status != "running":
        wrong.append(f"it runs, and is listed as {run.status}")
    if not 0 <= run.seconds < LONGEST:
        wrong.append(f"it is listed with {run.seconds} s")
    return wrong


ROW = Row(
    number="16",
    fault="the wall clock is set an hour or a day, forward or back, in a run and before its resume",
    must="Rates stay positive, times and what is left stay true, the order is by step; a living "
    "run is listed as running, a dead one as crashed; the resumed run ends as with one clock.",
    slice=4,
    full=20,
    run=run,
)
