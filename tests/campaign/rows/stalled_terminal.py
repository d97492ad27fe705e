"""Nobody reads the real app's terminal for a minute, its window changes a thousand times, and the
process is stopped and continued: training must not notice.

The same run is trained headless before and after, and drawn normally before and after the stall,
so that the three rates come from the same minutes. A trial is one change of the window's size.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import control, spool
from tests.campaign.commands import make_preset, start
from tests.campaign.pace_of_runs import beside_training, rate, steps
from tests.campaign.processes import CORPUS, make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.rows.closed_terminal import STEADY, hear, hear_for
from tests.campaign.screens import Screen, start_app

RUN = f"tiny-{CORPUS}"
STALL = 0.06  # seconds a resize: 1 000 of them are a minute
SLOWER = 0.02
JUDGED = 500  # resizes from which rates are: below it the windows are too short
WARM = 30  # steps before a rate is measured
AT_REST = 1.5  # seconds without drawing after which a paused app has drawn all, on a busy machine
STOPPED = 0.5  # seconds that the process stands still
MEASURED = STEADY | {
    "model.context_length": 32,
    "train.eval_every": 200,
    "train.eval_tokens": 64,
}


def run(trials: int, folder: Path, progress: Progress) -> Result:
    stall = trials * STALL
    drawn_for = max(0.8, stall / 3)
    before = _headless(folder / "before", drawn_for)
    app = _App(folder / "app")
    try:
        rates = app.carry_out(trials, stall, drawn_for, progress)
        result = Result(trials, app.problems)
        after = _headless(folder / "after", drawn_for)
    finally:
        app.end()
    headless = (before[0] + after[0]) / 2
    drawn = (rates["before"] + rates["after"]) / 2
    beside = {name: f"{share:.1%}" for name, share in app.beside.items()}
    result.figures = {
        "seconds without a reader": round(stall, 1),
        "resizes": trials,
        "steps a second, headless": headless,
        "steps a second, drawn": drawn,
        "steps a second, stalled": rates["stalled"],
        "stalled against drawn": f"{rates['stalled'] / drawn - 1:+.1%}",
        "stalled against headless": f"{rates['stalled'] / headless - 1:+.1%}",
        "of a core, used beside the training, headless": f"{(before[2] + after[2]) / 2:.1%}",
        "of a core, used beside the training, drawn": f"{beside['before']}, {beside['after']}",
        "of a core, used beside the training, stalled": beside["stalled"],
        "steps whose losses were compared": min(len(app.losses), len(before[1])),
    }
    for name, base in (("drawn", drawn), ("headless", headless)):
        if trials >= JUDGED and rates["stalled"] < base * (1 - SLOWER):
            result.failures.append(f"slower than {name}: {rates['stalled']:.1f} of {base:.1f}")
    shared = min(len(app.losses), len(before[1]))
    if shared < WARM or app.losses[:shared] != before[1][:shared]:
        result.failures.append(f"the losses of {shared} steps are not those of a headless run")
    if not result.failures:
        shutil.rmtree(folder)
    return result


class _App:
    """The app in a terminal, training."""

    def __init__(self, place: Path) -> None:
        self.path = place / "checkpoints" / RUN
        self.problems: list[str] = []
        self.losses: list[float] = []
        self.beside: dict[str, float] = {}  # cores that all but the training use, by phase
        lab = make_lab(place)
        make_preset(lab, "tiny", MEASURED)
        self.screen = Screen()
        self.child = start_app(place, self.screen.path, "--start", "tiny")

    def carry_out(
        self, resizes: int, stall: float, drawn_for: float, progress: Progress
    ) -> dict[str, float]:
        """Steps a second before, in and after the stall."""
        child, screen, rng = self.child, self.screen, random.Random(resizes)
        rates = {}
        hear(child, WARM)
        with self._measured("before", rates):
            hear_for(child, drawn_for)
        screen.reading.clear()
        with self._measured("stalled", rates):
            for number in range(resizes):
                screen.resize(rng.randint(40, 200), rng.randint(10, 60))
                hear_for(child, stall / resizes)
                progress(number)
        self._compare_screens()
        with self._measured("after", rates):
            hear_for(child, drawn_for)
        os.kill(child.process.pid, signal.SIGSTOP)
        time.sleep(STOPPED)
        os.kill(child.process.pid, signal.SIGCONT)
        hear_for(child, 0.5)
        self._stop()
        progress(resizes)
        return rates

    @contextmanager
    def _measured(self, phase: str, rates: dict[str, float]) -> Iterator[None]:
        begin, pid = time.time(), self.child.process.pid
        used = beside_training(pid)[0]
        yield
        end = time.time()
        self.beside[phase] = (beside_training(pid)[0] - used) / (end - begin)
        rates[phase] = rate(self.path, begin, end)

    def _compare_screens(self) -> None:
        """What the terminal shows once it reads again, with the run paused, against what it shows
        when all is drawn anew."""
        self.screen.type(b" ")
        hear_for(self.child, 1.0)
        # Some charts follow a run by jumps; with another size they show where it stands.
        self.screen.resize(self.screen.columns, self.screen.lines)
        hear_for(self.child, 1.0)
        self.screen.reading.set()
        self.screen.rest(AT_REST)
        shown, begin = self.screen.shows(), len(self.screen.written)
        os.kill(self.child.process.pid, signal.SIGCONT)
        time.sleep(0.3)
        self.screen.rest(AT_REST)
        anew = self.screen.shows(begin)
        wrong = [
            (number, was, now)
            for number, (was, now) in enumerate(zip(shown, anew, strict=True))
            if was != now and number > 0  # the first line tells what the screen costs
        ]
        if "paused" not in "".join(anew):
            self.problems.append("the screen does not say that the run is paused")
        self.problems += [f"line {number} shows {was!r}, not {now!r}" for number, was, now in wrong]
        self.screen.type(b" ")
        hear_for(self.child, 0.5)

    def _stop(self) -> None:
        spool.send(self.path, control.Stop(), "campaign")
        hear_for(self.child, 0.5)
        self.screen.type(b"q")
        if code := self.child.finish():
            self.problems.append(f"ended with {code}")
        self.losses = [loss for _, _, loss in steps(self.path)]

    def end(self) -> None:
        self.child.kill()
        self.screen.close()


def _headless(place: Path, seconds: float) -> tuple[float, list[float], float]:
    """The same run without a screen: steps a second, the losses, and the cores that all but the
    training use."""
    lab = make_lab(place)
    make_preset(lab, "tiny", MEASURED)
    child = start(place, ["train", "--config", "tiny"], place / "output")
    path = place / "checkpoints" / RUN
    try:
        hear(child, WARM)
        begin, used = time.time(), beside_training(child.process.pid)[0]
        hear_for(child, seconds)
        end = time.time()
        beside = (beside_training(child.process.pid)[0] - used) / (end - begin)
        return rate(path, begin, end), [loss for _, _, loss in steps(path)], beside
    finally:
        child.kill()


ROW = Row(
    number="12",
    fault="nobody reads the app's terminal for 60 s while its window changes 1 000 times; SIGSTOP",
    must="The step rate stays within 2 % of the drawn and of the headless one, the losses are those"
    " of a headless run to the last bit, and every line of the screen is right afterwards.",
    slice=50,
    full=1000,
    run=run,
    quiet=True,
)
