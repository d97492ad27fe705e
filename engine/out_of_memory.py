"""Out of memory: knowing it when it comes, making room, and saying what to change.

PyTorch has one exception for GPUs, another for the CPU's allocator, Python a third, and a step
compiled to C++ says no more than which of its calls failed.
"""

from __future__ import annotations

import gc
import re
import traceback

import torch

from engine.config import Config
from engine.errors import EngineError
from engine.fitting import smaller_batch
from engine.footprint import training_memory

_CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")
_COMPILED = re.compile(r"aoti_torch_(empty_strided|\w*scaled_dot_product\w*)\b.* API call failed")
"""What a compiled step calls for its memory, and the operations that allot some of their own."""


class OutOfMemory(EngineError):
    """The device's memory does not hold what was asked of it. The weights are as they were."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    if not isinstance(error, RuntimeError):
        return False
    return any(sign in text for sign in _CPU_ALLOCATOR) or bool(_COMPILED.search(text))


def make_room(error: BaseException, device: torch.device) -> None:
    """Let go of what the failed step still holds: its frames, and the allocator's cache."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def explain(
    stage: str, step: int, run: str, config: Config, vocab_size: int, device: str, precision: str
) -> OutOfMemory:
    """The error that a person reads: where it happened, what takes the memory, what to change.

    `stage`: forward, backward, optimizer; `device`: cpu, cuda or mps.
    """
    needed = training_memory(config, vocab_size, precision, device)
    largest, size = max(needed.parts(), key=lambda part: part[1])
    title = (
        f"out of memory at step {step:,} ({stage}): training needs about {needed.total / 1e9:.1f} "
        f"GB, the {largest} {size / 1e9:.1f} GB of it"
    )
    change = smaller_batch(config)
    if change:
        hint = f"the same step in less memory: tui-lab train --resume {run} {change}"
    else:
        hint = (
            "a batch of one window does not fit: shorten model.context_length, or shrink the model"
        )
    return OutOfMemory(title, hint)
