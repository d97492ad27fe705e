"""What of a run goes into a checkpoint, and back out of it: weights, moments, random state, place.

The saver beneath it knows files and durability; this knows the run. Saves are written in a thread;
what it has to say is relayed between steps, so that every event comes from the training thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import events
from engine.checkpoints import CheckpointInfo, newest_verified
from engine.checkpoints.background import BackgroundSaver
from engine.checkpoints.load import Training, load_training, load_weights
from engine.checkpoints.save import SaveError, SaveResult
from engine.config import Config
from engine.errors import CheckpointError
from engine.guard import Guard
from engine.optim import Optimizer
from engine.progress import Progress

OPTIMIZER = "optimizer."
RANDOM = "rng."
GUARD = "guard."
FRESH = "fresh"
"""In the state of a checkpoint that was never trained here (an imported model): nothing but the
weights goes on, all else begins as a new run's."""


@dataclass(frozen=True)
class Boundary:
    """A moment between two steps: what a checkpoint of it holds beside weights and moments.

    Kept from one step to the next, so that the boundary can still be saved, or gone back to, while
    the step after it is under way.
    """

    progress: Progress
    batches: dict[str, Any]
    random: dict[str, Tensor]
    guard: Any  # the guard's own `memory`


class Keeper:
    """Takes snapshots of one run, puts them back, and remembers which checkpoint is its newest."""

    def __init__(
        self,
        run_path: Path,
        config: Config,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler | None,
        guard: Guard,
        facts: dict[str, Any],
        resumed_from: Path | None = None,
    ) -> None:
        self.run_path = run_path
        self.model, self.optimizer, self.scaler, self.guard = model, optimizer, scaler, guard
        self.meta = {"config": config.to_dict(), **facts}
        self.newest = str(resumed_from or "")
        self.compiled = False
        """Whether steps are compiled: a resumed run's are then too, to round as these do."""
        self._said: deque[events.Event] = deque()
        self._saved_step = -1
        self._saver = BackgroundSaver(
            run_path,
            policy="all" if config.save.policy == "all" else "rolling",
            resumed_from=resumed_from,
            on_saved=self._on_saved,
            on_failed=self._on_failed,
            on_recovered=self._on_recovered,
            on_deleted=self._on_deleted,
        )

    def boundary(self, progress: Progress, batches: dict[str, Any]) -> Boundary:
        """Remember of this step boundary what the next step changes beside the weights."""
        return Boundary(replace(progress), batches, random_states(), self.guard.memory())

    def save(self, at: Boundary, val_loss: float | None, kind: str) -> None:
        """Copy the state and write it in the background; training waits for the copy alone.

        `at`: the step boundary that the weights are at. `val_loss` is the loss of these very
        weights, None when they were not evaluated. A step that was saved already is saved again
        only by hand. Weights that are not finite are never saved: that is said instead.
        """
        progress = at.progress
        if progress.step == self._saved_step and kind != "manual":
            return
        if not self.optimizer.is_finite():
            self._said.append(
                events.Alert(
                    level="error",
                    title=f"step {progress.step:,} is not saved: its weights are not finite",
                    hint="earlier checkpoints are kept; resume from one of them",
                    step=progress.step,
                )
            )
            return
        self._saved_step = progress.step
        state = {
            "progress": progress.to_dict(),
            "batches": at.batches,
            "compiled": self.compiled,
        }
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        meta = self.meta | {
            "step": progress.step,
            "tokens": progress.tokens,
            "val_loss": val_loss,
            "data": at.batches,
        }
        moments = self.optimizer.moments()
        tensors = {f"{OPTIMIZER}{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"{RANDOM}{name}": tensor for name, tensor in at.random.items()}
        tensors |= {
            f"{GUARD}{name}": tensor for name, tensor in self.guard.tensors(at.guard).items()
        }
        self._saver.snapshot(self.model.state_dict(), tensors, state, meta, kind)

    def restore(self, info: CheckpointInfo) -> Training:
        """Put weights, moments, random state, guard and scaler back as `info` holds them.

        Data order and progress are the caller's, and in what is returned. Raises CheckpointError:
        nothing can be trained with what is here then, until another was restored.
        """
        load_into(self.model, info)
        mine = {f"{OPTIMIZER}{name}": tensor for name, tensor in self.optimizer.moments().items()}
        saved = load_training(info, into=mine)
        if self.scaler is not None and "scaler" in saved.state:
            self.scaler.load_state_dict(saved.state["scaler"])
        guard = {
            name.removeprefix(GUARD): tensor
            for name, tensor in saved.tensors.items()
            if name.startswith(GUARD)
        }
        self.guard.restore(guard)
        if not saved.state.get(FRESH):
            self.optimizer.restore(
                {
                    name.removeprefix(OPTIMIZER): tensor
                    for name, tensor in saved.tensors.items()
                    if name.startswith(OPTIMIZER)
                }
            )
        set_random_states(saved.rng)
        return saved

    def newest_sound(self) -> CheckpointInfo | None:
        """The run's newest checkpoint whose every byte verifies, once nothing is being written."""
        self._saver.wait()
        return newest_verified(self.run_path)[0]

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
        again = "training goes on, and it is tried again; " if will_retry else ""
        hint = f"{again}{error.hint}".rstrip("; ")
        self._said.append(events.Alert(level="error", title=error.title, hint=hint))
        self._saved_step = -1

    def _on_recovered(self, result: SaveResult) -> None:
        title = f"saving works again: step {result.step:,} is saved"
        self._said.append(events.Alert(level="info", title=title))

    def _on_deleted(self, info: CheckpointInfo) -> None:
        self._said.append(events.CheckpointDeleted(step=info.step, path=str(info.path)))

    def relay(self, emit: events.Emit) -> None:
        """Emit what the writer has said since the last call."""
        self._saver.poll()
        while self._said:
            emit(self._said.popleft())

    def close(self, emit: events.Emit) -> None:
        """Wait until the newest snapshot is durable (or has failed for good), and say so."""
        self._saver.wait()
        self.relay(emit)


def random_states() -> dict[str, Tensor]:
    """The generators that training draws from, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError for a state that is missing or that torch does not take."""
    try:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            "the checkpoint's random state cannot be restored", str(error).splitlines()[0]
        ) from error


def load_into(model: nn.Module, info: CheckpointInfo) -> None:
    """Read a checkpoint's tensors into `model`; a tied output matrix comes with its embedding.

    Raises CheckpointError when they are not the model's, or damaged: its weights are neither the
    old ones nor the checkpoint's then.
    """
    mine = model.state_dict()
    weights = load_weights(info, into=mine)
    missing = [name for name in mine if name not in weights and name != "lm_head.weight"]
    unexpected = [name for name in weights if name not in mine]
    if missing or unexpected:
        raise CheckpointError(
            f"{info.path.name}: tensors {'missing' if missing else 'not known'}: "
            f"{', '.join((missing or unexpected)[:3])}",
            "it was made with another configuration",
        )
    for name, tensor in weights.items():
        if tensor.shape != mine[name].shape:
            raise CheckpointError(
                f"{info.path.name}: its tensors do not fit the run's configuration",
                f"'{name}' is {_by(tensor)} there, {_by(mine[name])} in the model",
            )
        if tensor is not mine[name]:
            mine[name].copy_(tensor)


def _by(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "one number"
