"""A run that is stopped and resumed is the run that went through, in every cell of the grid.

The grid: dropout × accumulation × precision × tokenizer × policy, each stopped three times within
one epoch, and after every single step. All in one process: a resumed run shares nothing with the
stopped one but its folder. What is compared are the files, and the very batches that were trained.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from engine import control, events, peaks
from engine.config import Config
from engine.lab import Lab
from tests.campaign.processes import CORPUS, make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.story import differing, story

EPOCH = 6  # steps, about; stops lie within the first one, and the run goes on into the second
STEPS = 9
WINDOWS = {"bytes": 195, "char": 195, "word": 56, "bpe": 52, "gpt2": 57}
"""About how many windows of the corpus an epoch has, by tokenizer."""

BASE = {
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.context_length": 16,
    "data.corpus": CORPUS,
    "data.vocab_size": 300,
    "optimizer.lr": 1e-2,
    "schedule.warmup_steps": 2,
    "train.max_steps": STEPS,
    "train.eval_every": 4,
    "train.eval_tokens": 64,
    "train.threads": 1,
    "train.device": "cpu",
    "sample.every": 3,
    "sample.max_tokens": 2,
    "sample.prompts": ["the "],
    "save.every": 4,
}


@dataclass(frozen=True)
class Cell:
    """One place in the grid. `each`: stopped after every step, else three times in an epoch."""

    tokenizer: str
    dropout: float
    accumulate: int
    precision: str
    policy: str
    each: bool
    compiled: bool = False

    @property
    def name(self) -> str:
        words = [self.tokenizer, f"dropout {self.dropout}", f"accumulate {self.accumulate}"]
        words += [self.precision, self.policy, "each step" if self.each else "three stops"]
        return ", ".join(words + ["compiled"] * self.compiled)

    def values(self) -> dict[str, Any]:
        return BASE | {
            "data.tokenizer": self.tokenizer,
            "model.dropout": self.dropout,
            "train.accumulate": self.accumulate,
            "train.batch_size": max(1, WINDOWS[self.tokenizer] // (EPOCH * self.accumulate)),
            "train.precision": self.precision,
            "train.compile": self.compiled,
            "save.policy": self.policy,
        }

    def stops(self) -> list[int]:
        """The steps after which the run is stopped, in order."""
        if self.each:
            return list(range(1, STEPS))
        return sorted(random.Random(self.name).sample(range(1, EPOCH), 3))


def grid() -> list[Cell]:
    """Every cell, mixed so that the first few are of many kinds; the compiled ones come last."""
    cells = [
        Cell(*place)
        for place in itertools.product(
            WINDOWS, (0.0, 0.1), (1, 4), ("float32", "bfloat16"), ("rolling", "all"), (False, True)
        )
    ]
    random.Random(20).shuffle(cells)
    compiled = [Cell("char", 0.1, 4, kind, "rolling", False, True) for kind in PRECISIONS]
    return cells + compiled


PRECISIONS = ("float32", "bfloat16")


def run(trials: int, folder: Path, progress: Progress) -> Result:
    result, equal, resumes = Result(), 0, 0
    lab = make_lab(folder / "lab")
    whole: dict[Config, dict[str, Any]] = {}  # how the uninterrupted run of a configuration ended
    for cell in grid()[:trials]:
        config = Config().with_values(cell.values())
        if config not in whole:
            whole[config] = _carry_out(lab, config, [])
        told = _carry_out(lab, config, cell.stops())
        other = differing(told, whole[config])
        result.failures += [f"cell '{cell.name}': {name} differs" for name in other]
        result.trials += 1
        equal += not other
        resumes += len(cell.stops())
        progress(result.trials)
    result.figures = {
        "cells": result.trials,
        "equal to the uninterrupted run to the last bit": equal,
        "resumes": resumes,
    }
    return result


def _carry_out(lab: Lab, config: Config, stops: list[int]) -> dict[str, Any]:
    """The story of a run of `config` that is stopped after each of `stops` and resumed."""
    from engine.session import resume_training, run_training

    path = lab.checkpoints / "run"
    batches: list[str] = []
    for place, stop in enumerate([*stops, 0]):
        inbox = control.Inbox()

        def emit(event: events.Event, stop: int = stop, inbox: control.Inbox = inbox) -> None:
            if isinstance(event, events.StepDone) and event.step == stop:
                inbox.put(control.Stop())

        with _recorded(batches):
            if place:
                finished = resume_training(lab, "run", emit=emit, inbox=inbox)
            else:
                finished = run_training(lab, config, emit=emit, inbox=inbox, name="run")
        if finished.step != (stop or STEPS):
            raise RuntimeError(f"the run ended at step {finished.step}, not {stop or STEPS}")
    told = story(path) | {"batches": batches}
    shutil.rmtree(path)
    return told


@contextmanager
def _recorded(batches: list[str]) -> Iterator[None]:
    """Every batch that is trained on leaves its hash."""
    from engine.objectives import Pretrain

    loss = Pretrain.loss

    def recorded(self: Pretrain, model: Any, batch: Any) -> Any:
        batches.append(hashlib.sha256(batch.numpy().tobytes()).hexdigest())
        return loss(self, model, batch)

    with (
        mock.patch.object(Pretrain, "loss", recorded),
        mock.patch.object(peaks, "measured_peak", lambda *asked: 1e12),
    ):
        yield


ROW = Row(
    number="20",
    fault="stopped and resumed: three times an epoch and after every step, over the whole grid",
    must="Losses, weights, moments, random state, place in the data and every batch are those of "
    "the uninterrupted run, to the last bit.",
    slice=2,
    full=len(grid()),
    run=run,
)
