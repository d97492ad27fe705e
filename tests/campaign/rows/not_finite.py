"""NaN and infinities in the loss, a gradient or a weight: they never reach what is kept."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import torch

from engine import control, events
from engine.checkpoints import list_checkpoints
from engine.checkpoints.load import load_training, load_weights
from tests.campaign.faults import not_finite
from tests.campaign.processes import make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.tiny import Tiny

PLACES = ("loss", "gradient", "weight")
VALUES = (math.nan, math.inf, -math.inf)
POLICIES = ("pause", "stop", "skip", "rollback")
STEPS = ({1}, {5}, {4, 5, 6}, {9, 10}, {2, 3, 4, 5, 6, 7, 8, 9})
CASES = list(itertools.product(POLICIES, PLACES, STEPS, VALUES))


def run(trials: int, folder: Path, progress: Progress) -> Result:
    lab, result = make_lab(folder), Result()
    skipped = saved_bad = averaged = 0
    for index in range(trials):
        policy, place, steps, value = CASES[index * len(CASES) // trials % len(CASES)]
        what = f"{value} in the {place} at {sorted(steps)}, --on-nan {policy}"
        tiny = Tiny(lab, f"bad-{index}")
        tiny.listen = lambda event, tiny=tiny: (
            tiny.inbox.put(control.Stop(), "campaign") if isinstance(event, events.Paused) else None
        )
        with not_finite(place, value, steps):
            tiny.train(train__on_nan=policy, train__accumulate=1)
        wrong = judge(tiny, policy, place, steps)
        for info in list_checkpoints(tiny.path):
            kept = [*load_weights(info).values(), *load_training(info).tensors.values()]
            if not all(torch.isfinite(tensor).all() for tensor in kept):
                saved_bad += 1
                wrong.append(f"step {info.step} was saved with what is not finite")
        scores = [event for event in tiny.of(events.EvalDone) if event.best]
        averaged += sum(not math.isfinite(event.val_loss) for event in scores)
        skipped += sum("was skipped" in title for title in tiny.alerts())
        result.failures += [f"{what}: {line}" for line in wrong]
        shutil.rmtree(tiny.path)
        result.trials += 1
        progress(result.trials)
    result.figures = {
        "runs": result.trials,
        "updates skipped and shouted about": skipped,
        "checkpoints with a value that is not finite": saved_bad,
        "evaluations called best that are not finite": averaged,
    }
    return result


def judge(tiny: Tiny, policy: str, place: str, steps: set[int]) -> list[str]:
    """What did not end as the policy says."""
    if tiny.finished is None:
        return [f"it ended with {tiny.error!r}"]
    alerts, paused = tiny.alerts(), len(tiny.of(events.Paused))
    wrong = [] if any("skipped" in title for title in alerts) else ["nothing was said"]
    # A weight that is not finite spoils every step after it, until a rollback.
    in_a_row = 10 - min(steps) + 1 if place == "weight" else len(steps)
    reached = in_a_row >= 3
    rolled = len(tiny.of(events.RolledBack))
    if policy == "pause" and bool(paused) != reached:
        wrong.append(f"paused {paused} times after {in_a_row} in a row")
    if policy == "stop" and (tiny.finished.reason == "not finite") != reached:
        wrong.append(f"ended by '{tiny.finished.reason}' after {in_a_row} in a row")
    if policy == "skip" and (paused or tiny.finished.reason != "completed"):
        wrong.append(f"'{tiny.finished.reason}' with {paused} pauses, and should have gone on")
    if policy == "rollback" and reached and not rolled and not paused:
        wrong.append("neither rolled back nor, without a checkpoint, paused")
    return wrong


ROW = Row(
    number="15",
    fault="NaN or infinity in loss, gradient or weight",
    must="the update is skipped and shouted about, never reaches weights, averages, best or a "
    "checkpoint; three in a row pause, stop, go on or roll back, as --on-nan says",
    slice=12,
    full=len(CASES),
    run=run,
)
