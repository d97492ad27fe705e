"""The disk fills up under a training run, in its metrics and in a save, and is emptied again.

A trial is one run, trained for real. It saves once; then the disk is filled and a save asked for,
and no other save is due. Half of the trials fill a disk that tells how much is free, where a save
is not even begun; in the others it tells a lie, and the save meets the end of the disk half-way.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import control, events, run_writer
from engine.checkpoints import background, list_checkpoints, verify
from engine.checkpoints import save as save_module
from engine.config import Config
from engine.lab import Lab
from engine.metrics import read_metrics
from engine.session import run_training
from tests.campaign.row import Progress, Result, Row
from tests.campaign.small_disk import Disk, small_disk
from tests.tiny_run import SETTINGS, make_tiny_run

SIZE = 3 << 20
STEPS = 5_000  # a trial ends by itself much earlier, unless the save never lands
FULL_AFTER = 5  # steps, and a first save that was acknowledged: that one must not be lost
CHANGES: dict[str, Any] = {
    "train.max_steps": STEPS,
    "train.eval_every": 0,
    "save.every": 0,
    "save.policy": "rolling",
}
RETRY = 0.05  # seconds instead of five
FLUSH = 0.02  # seconds between two writes of the metrics instead of one


@dataclass
class Trial:
    """One run's listener, which fills and empties the disk and steers the run."""

    disk: Disk
    run: Path
    leave: int
    patience: int  # steps between the alert and room being made
    inbox: control.Inbox = field(default_factory=control.Inbox)
    alerts: list[events.Alert] = field(default_factory=list)
    acknowledged: bool = False
    full_at: int = 0
    room_at: int = 0
    landed: int = 0  # the step at which "saved" was heard
    saved: int = 0  # the step that was saved
    last_step: int = 0
    sound_while_full: bool = False

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.StepDone(step=step):
                self.last_step = step
                if step == 1:
                    self.inbox.put(control.SaveNow(), "trial")
                elif self.acknowledged and not self.full_at and step >= FULL_AFTER:
                    self.full_at = step
                    self.disk.fill(self.leave)
                    self.inbox.put(control.SaveNow(), "trial")
                elif step == self.room_at:
                    self.sound_while_full = any(
                        not verify(info.path) for info in list_checkpoints(self.run)
                    )
                    self.disk.empty()
            case events.Alert(title=title):
                self.alerts.append(event)
                if "is not saved" in title and not self.room_at:
                    self.room_at = self.last_step + self.patience
            case events.CheckpointSaved() if not self.full_at:
                self.acknowledged = True
            case events.CheckpointSaved(step=step) if self.room_at:
                self.saved, self.landed = step, self.last_step
                self.inbox.put(control.Stop(save=False, reason="landed"), "trial")

    def problems(self, finished: events.Finished) -> list[str]:
        said = [alert.title for alert in self.alerts]
        failed = [alert for alert in self.alerts if "is not saved" in alert.title]
        again = [title for title in said if title.startswith("saving works again")]
        found = []
        if not any("the disk is full (" in a.title and " MB needed" in a.title for a in failed):
            found.append(f"no alert names the bytes needed: {said}")
        if len(failed) != 1 or len(again) != 1:
            found.append(f"one alert and one all-clear are due, not {said}")
        if finished.reason != "landed" or self.saved != self.full_at:
            found.append(f"the save of step {self.full_at} never landed ({finished.reason})")
        if not self.sound_while_full:
            found.append("no checkpoint was sound while the disk was full")
        broken = [info.path.name for info in list_checkpoints(self.run) if verify(info.path)]
        left = [path.name for path in self.run.glob(".tmp-*")]
        if broken or left:
            found.append(f"broken: {broken}, left over: {left}")
        steps = list(read_metrics(self.run)["step"])
        if steps != list(range(1, self.last_step + 1)):
            found.append(f"of {self.last_step} steps the metrics have {len(steps)}")
        return found


def run(trials: int, folder: Path, progress: Progress) -> Result:
    kept = background.FIRST_RETRY, run_writer.FLUSH_SECONDS, save_module._check_room
    background.FIRST_RETRY, run_writer.FLUSH_SECONDS = RETRY, FLUSH
    try:
        with small_disk(folder / "disk", SIZE) as disk:
            return _run(trials, disk, folder / "disk", progress)
    finally:
        background.FIRST_RETRY, run_writer.FLUSH_SECONDS, save_module._check_room = kept


def _run(trials: int, disk: Disk, place: Path, progress: Progress) -> Result:
    lab, _ = make_tiny_run(place, "model", train__max_steps=10)
    size = max(info.bytes for info in list_checkpoints(lab.checkpoints / "model"))
    shutil.rmtree(lab.checkpoints / "model")
    honest = save_module._check_room
    figures: Counter[str] = Counter()
    failures: list[str] = []
    waits: list[int] = []
    for number in range(trials):
        rng = random.Random(number)
        honest_disk = number % 2 == 0
        save_module._check_room = honest if honest_disk else lambda *_: None
        trial = Trial(
            disk,
            lab.checkpoints / f"run-{number}",
            leave=rng.choice((0, rng.randrange(size * 9 // 10))),
            patience=rng.randint(5, 60),
        )
        said = _train(lab, trial, number)
        failures += [f"trial {number} (leaves {trial.leave:,} bytes): {line}" for line in said]
        figures["fills"] += 1
        figures["runs that ended by it"] += any("ended" in line for line in said)
        figures["saves that met the end of the disk half-way"] += not honest_disk
        figures["fills that stopped the metrics, which lost nothing"] += any(
            "files cannot be written" in alert.title for alert in trial.alerts
        )
        figures["saves that landed without another being due"] += trial.saved == trial.full_at > 0
        figures["checkpoints lost"] += any("sound" in line or "broken" in line for line in said)
        waits.append(trial.landed - trial.room_at)
        disk.empty()
        shutil.rmtree(trial.run)
        progress(number + 1)
    most = {"most steps from room being made to the save that landed": max(waits, default=0)}
    return Result(trials, failures, {"disk": f"{disk.kind}, 3 MB", **figures, **most})


def _train(lab: Lab, trial: Trial, seed: int) -> list[str]:
    config = Config().with_values(SETTINGS | CHANGES | {"train.seed": seed})
    try:
        finished = run_training(lab, config, emit=trial, inbox=trial.inbox, name=trial.run.name)
    except BaseException as error:  # whatever ends a run is what this row looks for
        return [f"the run ended: {type(error).__name__}: {error}"]
    return trial.problems(finished)


ROW = Row(
    number="4",
    fault="the disk fills up in a save and in the metrics",
    must="an alert names the bytes needed, training goes on with the earlier checkpoint sound, and "
    "once there is room the save lands by itself and the metrics lack no step",
    slice=3,
    full=200,
    run=run,
)
