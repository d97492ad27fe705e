"""What of a run goes into a checkpoint, and back out of it: weights, moments, random state, place.

The saver beneath it knows files and durability; this knows the run. Saves are written in a thread;
what it has to say is relayed between steps, so that every event comes from the training thread.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import events
from engine.checkpoints import CheckpointInfo
from engine.checkpoints.load import Training
from engine.checkpoints.save import BackgroundSaver, SaveError, SaveResult
from engine.config import Config
from engine.data import Batches
from engine.errors import CheckpointError
from engine.progress import Progress

OPTIMIZER = "optimizer."
RANDOM = "rng."


class Keeper:
    """Takes snapshots of one run, and remembers which checkpoint is its newest."""

    def __init__(
        self,
        run_path: Path,
        config: Config,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        batches: Batches,
        facts: dict[str, Any],
        resumed_from: Path | None = None,
    ) -> None:
        self.model, self.optimizer, self.scaler, self.batches = model, optimizer, scaler, batches
        self.meta = {"config": config.to_dict(), **facts}
        self.newest = str(resumed_from or "")
        self._said: deque[events.Event] = deque()
        self._saved_step = -1
        self._saver = BackgroundSaver(
            run_path,
            policy="all" if config.save.policy == "all" else "rolling",
            resumed_from=resumed_from,
            on_saved=self._on_saved,
            on_failed=self._on_failed,
            on_deleted=self._on_deleted,
        )

    def save(self, progress: Progress, val_loss: float | None, kind: str) -> None:
        """Copy the state and write it in the background; training waits for the copy alone.

        `val_loss` is the loss of these very weights, None when they were not evaluated. A step that
        was saved already is saved again only by hand.
        """
        if progress.step == self._saved_step and kind != "manual":
            return
        self._saved_step = progress.step
        state = {"progress": progress.to_dict(), "batches": self.batches.state()}
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        meta = self.meta | {
            "step": progress.step,
            "tokens": progress.tokens,
            "val_loss": val_loss,
            "data": self.batches.state(),
        }
        self._saver.snapshot(
            self.model.state_dict(), training_tensors(self.optimizer), state, meta, kind
        )

    def _on_saved(self, result: SaveResult) -> None:
        self.newest = str(result.path)
        self._said.append(
            events.CheckpointSaved(
                step=result.step,
                path=str(result.path),
                bytes=result.bytes,
                seconds=result.seconds,
                kind=result.kind,
                val_loss=result.val_loss,
            )
        )

    def _on_failed(self, error: SaveError, will_retry: bool) -> None:
        again = "it is tried again at the next save; " if will_retry else ""
        hint = f"{again}{error.hint}".rstrip("; ")
        self._said.append(events.Alert(level="error", title=error.title, hint=hint))
        self._saved_step = -1

    def _on_deleted(self, info: CheckpointInfo) -> None:
        self._said.append(events.CheckpointDeleted(step=info.step, path=str(info.path)))

    def relay(self, emit: events.Emit) -> None:
        """Emit what the writer has said since the last call."""
        while self._said:
            emit(self._said.popleft())

    def close(self, emit: events.Emit) -> None:
        """Wait until the newest snapshot is durable (or has failed for good), and say so."""
        self._saver.wait()
        self.relay(emit)


def training_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments by parameter name, and the generators' states: all that a resume needs beside the
    weights."""
    tensors = {
        f"{OPTIMIZER}{key}.{name}": value
        for name, parameter in named_parameters(optimizer)
        for key, value in optimizer.state[parameter].items()
    }
    tensors[f"{RANDOM}cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors[f"{RANDOM}cuda"] = torch.cuda.get_rng_state()
    return tensors


def named_parameters(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    ]


def restore_training(optimizer: torch.optim.Optimizer, saved: Training) -> None:
    """Put moments and random state back. Raises CheckpointError when a moment is missing."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in saved.tensors.items():
        if name.startswith(OPTIMIZER):
            key, _, parameter = name.removeprefix(OPTIMIZER).partition(".")
            states.setdefault(parameter, {})[key] = tensor
    for name, parameter in named_parameters(optimizer):
        if name not in states:
            raise CheckpointError(
                f"the checkpoint has no optimiser state for '{name}'",
                "its model differs from the run's configuration; resume another checkpoint",
            )
        optimizer.state[parameter] = {
            # A fused optimiser keeps its step counts on the device of the parameter.
            key: tensor.to(parameter.device)
            for key, tensor in states[name].items()
        }
    torch.set_rng_state(saved.rng["cpu"])
    if "cuda" in saved.rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved.rng["cuda"])
