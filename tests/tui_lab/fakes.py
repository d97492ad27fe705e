"""A session that trains nothing but says and obeys what the real one does, at any speed.

It stands in for slowness only: events, commands and their effects are those of `engine.trainer`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from engine import control, events
from engine.config import Config, to_toml
from engine.errors import EngineError
from engine.schedule import learning_rate

NOON = 1_760_000_000.0


def config(**values) -> Config:
    """A small configuration; keyword `train__max_steps=5` sets `train.max_steps`."""
    base = {
        "train.max_steps": 1000,
        "schedule.warmup_steps": 50,
        "optimizer.lr": 3e-3,
        "schedule.min_lr": 3e-4,
        "sample.prompts": ("The with statement",),
    }
    return Config().with_values(
        base | {key.replace("__", "."): value for key, value in values.items()}
    )


def started(told: Config, at: float = NOON, **values) -> events.RunStarted:
    facts = {
        "run": "micro-python-docs",
        "path": "/lab/checkpoints/micro-python-docs",
        "config": to_toml(told),
        "step": 0,
        "tokens": 0,
        "max_steps": told.train.max_steps,
        "steps_per_epoch": 210.0,
        "tokens_per_step": 2048,
        "n_parameters": 941_056,
        "flops_per_token": 6e6,
        "context_length": 128,
        "vocab_size": 1024,
        "train_tokens": 430_000,
        "val_tokens": 48_000,
        "bytes_per_token": 2.9,
        "device": "cpu",
        "device_name": "EPYC, 2 cores",
        "precision": "bfloat16",
        "threads": 2,
        "peak_flops": 2e11,
        "peak_source": "measured",
        "pid": 1,
        "host": "here",
    }
    return events.RunStarted(time=at, **(facts | values))


def step_done(told: Config, step: int, at: float, loss: float | None = None) -> events.StepDone:
    noise = math.sin(step * 12.9898) * 0.12 + math.sin(step * 3.7) * 0.08
    fallen = 2.1 + 4.8 * math.exp(-step / 60) + 0.9 * math.exp(-step / 500)
    return events.StepDone(
        time=at,
        step=step,
        tokens=step * 2048,
        loss=fallen + noise if loss is None else loss,
        lr=learning_rate(step - 1, told.schedule, told.optimizer.lr, told.train.max_steps),
        grad_norm=0.4 + abs(noise) * 2 + 1.5 * math.exp(-step / 30),
        tokens_per_second=48_000 + 3000 * math.sin(step / 9),
        mfu=0.31,
        memory_bytes=1_200_000_000,
        epoch=step / 210,
    )


def eval_done(step: int, at: float, best: bool = True) -> events.EvalDone:
    loss = 2.3 + 4.8 * math.exp(-step / 60) + 0.9 * math.exp(-step / 500)
    return events.EvalDone(
        time=at,
        step=step,
        tokens=48_000,
        val_loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=loss / math.log(2) / 2.9,
        best=best,
        seconds=0.4,
    )


def sample_done(step: int, at: float, text: str = "", **values) -> events.SampleDone:
    text = text or (
        " is used to wrap the execution of a block with methods defined by a context manager. "
        "This allows common try…except…finally usage patterns to be encapsulated."
    )
    facts = {"prompt": "The with statement", "tokens": 60, "seconds": 0.5}
    return events.SampleDone(time=at, step=step, text=text, **(facts | values))


def history(told: Config, until: int, *, seconds_a_step: float = 0.04) -> Iterator[events.Event]:
    """What a run says up to step `until`: the same every time."""
    yield events.Preparing(time=NOON, what="tokenising python-docs", done=3, total=4)
    yield started(told)
    for step in range(1, until + 1):
        at = NOON + step * seconds_a_step
        yield step_done(told, step, at)
        if step % 100 == 0:
            yield eval_done(step, at)
            yield sample_done(step, at)
        if step % 250 == 0:
            yield events.CheckpointSaved(
                time=at,
                step=step,
                path=f"step_{step:06}",
                bytes=11_000_000,
                seconds=0.1,
                kind="rolling",
            )
    yield events.DeviceStats(
        time=NOON + until * seconds_a_step,
        used=1_200_000_000,
        peak=1_400_000_000,
        total=8_100_000_000,
        host_rss=1_200_000_000,
    )


class FakeSession:
    """`run_training` and `resume_training`; `pause` seconds a step, `fail_at` raises there."""

    def __init__(
        self, pause: float = 0.001, fail_at: int = -1, error: BaseException | None = None
    ) -> None:
        self.pause = pause
        self.fail_at = fail_at
        self.error = error or EngineError("the disk is full", "free some space, then resume")
        self.commands: list[control.Command] = []
        self.resumed = ""

    def resume_training(self, lab, reference, *, emit, inbox, overrides=None):
        self.resumed = reference
        return self.run_training(lab, config(), emit=emit, inbox=inbox, start=100)

    def run_training(
        self, lab, told, *, emit, inbox, name=None, preset="", command_line="", start=0
    ):
        emit(events.Preparing(what="tokenising python-docs", done=1, total=2))
        emit(started(told, time.time(), step=start, resumed=start > 0))
        step, paused, granted, ending = start, False, 0, ""
        while step < told.train.max_steps:
            for command, who in inbox.take():
                self.commands.append(command)
                before = "paused" if paused else "training"
                after = ""
                match command:
                    case control.Pause():
                        paused, after = True, "paused"
                        emit(events.Paused(step=step))
                    case control.Resume():
                        paused, after = False, "training"
                        emit(events.Resumed(step=step))
                    case control.Step(count):
                        paused, granted, after = True, granted + count, f"{count} single step"
                    case control.Stop(_, reason):
                        ending = after = reason
                    case control.SaveNow():
                        emit(
                            events.CheckpointSaved(
                                step=step, path="p", bytes=1, seconds=0.0, kind="manual"
                            )
                        )
                    case control.EvalNow():
                        emit(eval_done(step, time.time()))
                    case control.SetLearningRate(lr):
                        before, after = "0.003", str(lr)
                    case control.Sample(prompt, _, request):
                        emit(sample_done(step, time.time(), prompt=prompt, request=request))
                emit(
                    events.ControlApplied(
                        step=step,
                        command=type(command).__name__,
                        before=before,
                        after=after,
                        who=who,
                    )
                )
            if ending:
                break
            if paused and not granted:
                inbox.wait(0.01)
                continue
            granted = max(0, granted - 1)
            step += 1
            if step == self.fail_at:
                if isinstance(self.error, EngineError):
                    emit(events.Failed(step=step, title=self.error.title, hint=self.error.hint))
                raise self.error
            time.sleep(self.pause)
            emit(step_done(told, step, time.time()))
        finished = events.Finished(
            run="micro-python-docs",
            step=step,
            tokens=step * 2048,
            reason=ending or "completed",
            seconds=12.0,
            checkpoint=f"/lab/checkpoints/micro-python-docs/step_{step:06}",
            best_val_loss=2.3,
            best_step=step,
        )
        emit(finished)
        return finished
