"""The parts of a run, built from its configuration and filled from a checkpoint. Needs torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine import atomic, control, events
from engine.arithmetic import flops_per_token
from engine.checkpoints import CheckpointInfo
from engine.checkpoints.layout import line_after
from engine.compiling import CompiledLoss, compiles
from engine.config import Config
from engine.data import Batches
from engine.device import memory, needs_scaler
from engine.feed import Feed
from engine.fitting import Needs
from engine.footprint import recomputes, training_memory
from engine.guard import build_guard
from engine.keeper import FRESH, Keeper
from engine.meter import Meter
from engine.model import GPT
from engine.model.float8 import to_float8
from engine.objectives import Loss, Pretrain
from engine.optim import Optimizer
from engine.parts import Parts
from engine.planner import count_steps, with_recompute
from engine.progress import Progress
from engine.runs import RunFolder
from engine.trainer import Trainer

if TYPE_CHECKING:
    from engine.session import Machine, Material

STOP_FILE = "stop"
"""A file of this name in the run's `control/` folder ends the run, with its state saved."""
VOCABULARY_MULTIPLE = {"cuda": 64}
"""By kind of device, of what the output matrix has a multiple of rows in a step."""


def assemble(
    folder: RunFolder,
    config: Config,
    material: Material,
    machine: Machine,
    emit: events.Emit,
    inbox: control.Inbox,
    resumed_from: CheckpointInfo | None,
) -> Trainer:
    """A trainer at step 0, or where `resumed_from` left off. Raises CheckpointError."""
    vocab_size, device = material.tokenizer.vocab_size, machine.device
    torch.manual_seed(config.train.seed)
    model = GPT(config.model, vocab_size).to(device)
    if config.train.float8:
        to_float8(model.blocks)
    decided = with_recompute(config, _needs(vocab_size, machine), memory(device).total)
    model.recompute = recomputes(decided)
    optimizer = Optimizer(model, config.model, config.optimizer, str(machine.precision))
    scaler = torch.amp.GradScaler(device.type) if needs_scaler(machine.precision) else None
    guard = build_guard(
        device,
        config.train.spike_factor,
        skip_spikes=config.train.on_spike != "warn" and scaler is None,
        scaled=scaler is not None,
    )
    batches = Batches(material.train, config.train.batch_size, config.train.seed)
    feed = Feed(batches, make=_pinned if device.type == "cuda" else torch.from_numpy)

    control_folder = folder.path / "control"
    control_folder.mkdir(mode=0o700, exist_ok=True)
    stop_file = control_folder / STOP_FILE
    atomic.discard(stop_file)
    facts = {
        "vocab_size": vocab_size,
        "line": line_after(folder.path, resumed_from) if resumed_from else 0,
        "precision": str(machine.precision),
        # What was asked for stands in the configuration, and may be asked for otherwise.
        "threads": 0 if config.train.threads else machine.threads,
        "digests": {
            "tokenizer": material.tokenizer.digest,
            "corpus": material.prepared.digest,
        },
    }
    keeper = Keeper(
        folder.path,
        config,
        model,
        optimizer,
        scaler,
        guard,
        facts,
        resumed_from.path if resumed_from else None,
    )
    progress = Progress()
    earlier = None
    if resumed_from is not None:
        saved = keeper.restore(resumed_from)
        progress = Progress.from_dict(saved.state.get("progress"))
        if not saved.state.get(FRESH):
            feed.restore(saved.state.get("batches", {}))
            earlier = saved.state.get("compiled")
    total_steps = count_steps(config, len(material.train))
    assert total_steps is not None  # the windows are counted
    multiple = VOCABULARY_MULTIPLE.get(device.type, 1)
    objective = Pretrain(config.model, config.train.loss_chunk, multiple)
    loss: Callable[[Tensor], Loss] = functools.partial(objective.loss, model)
    per_token = flops_per_token(config.model, vocab_size)
    tokens = total_steps * config.train.accumulate * config.train.batch_size
    flops = tokens * config.model.context_length * per_token
    if compiles(config.train.compile, earlier, flops, machine.peak_flops, device.type):

        def on_failure(why: str) -> None:
            keeper.compiled = False
            title = f"the step cannot be compiled, and runs as it is: {why}"
            hint = "a C++ compiler is needed (g++); train.compile = off does without"
            emit(events.Alert(level="warning", title=title, hint=hint))

        loss = CompiledLoss(loss, device.type, on_failure)
        keeper.compiled = True
    parts = Parts(
        config=config,
        model=model,
        objective=objective,
        loss=loss,
        optimizer=optimizer,
        scaler=scaler,
        guard=guard,
        feed=feed,
        val_windows=material.val,
        tokenizer=material.tokenizer,
        device=device,
        precision=machine.precision,
        autocast=machine.autocast,
        keeper=keeper,
        meter=Meter(device, per_token, machine.peak_flops),
        stop_file=stop_file.exists,
        total_steps=total_steps,
    )
    return Trainer(folder.name, parts, emit, inbox, progress)


def _pinned(batch: np.ndarray) -> Tensor:
    """In memory that a GPU copies from by itself, while the step before is at work."""
    return torch.from_numpy(batch).pin_memory()


def _needs(vocab_size: int, machine: Machine) -> Needs:
    """How many bytes a configuration takes on the machine, eager: which takes the most."""
    kind, precision = machine.device.type, str(machine.precision)
    return lambda config: training_memory(config, vocab_size, precision, kind).total
