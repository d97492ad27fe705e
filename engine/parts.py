"""What a run is made of: the parts that `engine.assembly` builds and `engine.trainer` drives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import Config
from engine.data import Windows
from engine.feed import Feed
from engine.guard import Guard
from engine.keeper import Keeper
from engine.meter import Meter
from engine.objectives import Loss, Pretrain
from engine.optim import Optimizer
from engine.tokenizers import Tokenizer


@dataclass
class Parts:
    """One run's network, optimiser, data and device, ready for its first step."""

    config: Config
    model: nn.Module  # checkpoints, evaluation and samples use it as it is
    objective: Pretrain
    loss: Callable[[Tensor], Loss]  # the objective's on a batch, perhaps compiled
    optimizer: Optimizer
    scaler: torch.amp.GradScaler | None  # for float16 alone
    guard: Guard
    feed: Feed
    val_windows: Windows | None
    tokenizer: Tokenizer
    device: torch.device
    precision: str
    autocast: Callable[[], AbstractContextManager[Any]]
    keeper: Keeper
    meter: Meter
    stop_file: Callable[[], bool]
    total_steps: int
