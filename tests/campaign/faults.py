"""Faults inside the training process: memory that runs out, numbers that are not finite.

Each is a context that patches one place of the engine, and counts how often it struck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from engine.objectives import Loss, Pretrain
from engine.optim import Optimizer

WANTS: dict[str, Callable[[], Exception]] = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "host": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError,
}
"""The three shapes in which want of memory comes."""

STAGES = ("forward", "backward", "optimizer", "evaluating", "sampling", "saving")


class Struck:
    """How often a fault has struck."""

    count = 0


def changed(loss: Loss, change: Callable[[torch.Tensor], torch.Tensor]) -> Loss:
    """`loss` with what is minimised and what is reported changed alike."""
    return replace(loss, minimised=change(loss.minimised), nats=change(loss.nats))


@contextmanager
def out_of_memory(stage: str, step: int, times: int, want: str) -> Iterator[Struck]:
    """Memory runs out in a stage of step `step` (or the first time after it), `times` times."""
    struck = Struck()
    real_loss, real_update = Pretrain.loss, Optimizer.update
    done = 0

    def strike(here: str) -> None:
        if here == stage and done >= step - 1 and struck.count < times:
            struck.count += 1
            raise WANTS[want]()

    class Costly(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            strike("backward")
            return gradient

    def loss(self: Pretrain, model: Any, batch: Any) -> Loss:
        value = real_loss(self, model, batch)
        strike("forward")
        return changed(value, Costly.apply)

    def update(self: Optimizer, *arguments: Any) -> Any:
        nonlocal done
        strike("optimizer")
        done += 1
        return real_update(self, *arguments)

    def before(name: str, here: str) -> Any:
        module, _, attribute = name.rpartition(".")
        real = getattr(__import__(module, fromlist=[attribute]), attribute)

        def called(*arguments: Any, **named: Any) -> Any:
            strike(here)
            return real(*arguments, **named)

        return mock.patch(name, called)

    with (
        mock.patch.object(Pretrain, "loss", loss),
        mock.patch.object(Optimizer, "update", update),
        before("engine.trainer.evaluate", "evaluating"),
        before("engine.trainer.generate", "sampling"),
        before("engine.checkpoints.snapshot.without_aliases", "saving"),
    ):
        yield struck


@contextmanager
def not_finite(where: str, value: float, steps: set[int]) -> Iterator[None]:
    """`value` appears in the loss, a gradient or a weight at `steps` (from 1, accumulate 1)."""
    real_loss, calls = Pretrain.loss, 0

    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, loss: torch.Tensor) -> torch.Tensor:
            return loss.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * value

    def loss(self: Pretrain, model: Any, batch: Any) -> Loss:
        nonlocal calls
        calls += 1
        if calls in steps and where == "weight":
            with torch.no_grad():
                next(model.parameters()).view(-1)[3] = value
        result = real_loss(self, model, batch)
        if calls in steps and where == "loss":
            return changed(result, lambda x: x * value if math.isnan(value) else x + value)
        return changed(result, Spoilt.apply) if calls in steps and where == "gradient" else result

    with mock.patch.object(Pretrain, "loss", loss):
        yield
