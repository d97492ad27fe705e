"""Memory runs out in each stage of a run: the app is told what to change, no half step is made."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from engine import events
from engine.checkpoints import list_checkpoints
from engine.out_of_memory import OutOfMemory
from tests.campaign.faults import STAGES, WANTS, out_of_memory
from tests.campaign.processes import make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.story import differing, story
from tests.campaign.tiny import Tiny

CASES = [
    (stage, step, times, want)
    for times, step, want, stage in itertools.product((1, 99), (1, 4, 7, 10), WANTS, STAGES)
]


def run(trials: int, folder: Path, progress: Progress) -> Result:
    lab = make_lab(folder)
    calm = story(Tiny(lab, "calm").train().path)
    result, ended, explained = Result(), 0, 0
    # A slice takes its cases from everywhere in the list, not from its beginning.
    for index in range(trials):
        stage, step, times, want = CASES[index * len(CASES) // trials % len(CASES)]
        tiny = Tiny(lab, f"short-{index}")
        with out_of_memory(stage, step, times, want) as struck:
            tiny.train()
        what = f"{stage} at step {step}, {times} times, {want}"
        if not struck.count:
            result.failures.append(f"{what}: the fault never struck")
        beside = stage in ("evaluating", "sampling", "saving")
        if tiny.error is not None:
            ended += 1
            says = str(tiny.error)
            explained += "--batch-size" in says
            good = isinstance(tiny.error, OutOfMemory) and f"({stage})" in says
            if beside or (times == 1 and stage != "optimizer") or not good:
                result.failures.append(f"{what}: ended with {says[:200]}")
            elif "--batch-size 2 --set train.accumulate=2" not in says:
                result.failures.append(f"{what}: does not say what to change: {says[:200]}")
            elif not tiny.of(events.Failed):
                result.failures.append(f"{what}: the listeners were not told")
            tiny.resume()
        elif not any("memory" in title or "not saved" in title for title in tiny.alerts()):
            result.failures.append(f"{what}: nothing was said")
        # What evaluations and samples leave out they leave out; the training is the same.
        skip = {"val_loss by step", "progress and place in the data"} if beside else set()
        if stage == "optimizer" and not list_checkpoints(tiny.path):
            # Before the first save: there is nothing to go back to, and resuming must say so.
            if "no checkpoint" not in str(tiny.error):
                result.failures.append(f"{what}: resuming says {tiny.error}")
        elif stage == "saving" and times > 1:
            if any(saved.step >= step - 1 for saved in tiny.of(events.CheckpointSaved)):
                result.failures.append(f"{what}: something was saved")
        elif wrong := set(differing(story(tiny.path), calm)) - skip:
            result.failures.append(f"{what}: not the undisturbed run: {', '.join(sorted(wrong))}")
        shutil.rmtree(tiny.path)
        result.trials += 1
        progress(result.trials)
    result.figures = {
        "wants of memory": result.trials,
        "runs ended by them, each with what to change": ended,
        "of these naming the smaller batch": explained,
        "half steps (weights, moments or random state not those of the undisturbed run)": sum(
            "not the undisturbed" in line for line in result.failures
        ),
    }
    return result


ROW = Row(
    number="14",
    fault="out of memory in forward, backward, optimiser, evaluation, sampling, saving",
    must="said with what to change (the planner's words); beside the training it goes on; inside a "
    "step it is tried once more, then saved and ended; weights, moments and random state are those "
    "of the undisturbed run, or the run resumes to them",
    slice=12,
    full=len(CASES),
    run=run,
)
