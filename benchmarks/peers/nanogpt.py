"""nanoGPT's side: the model and optimiser of a checkout's model.py, stepped as its train.py does.

    python -m benchmarks.peers.nanogpt --checkout DIR --shape 384 [--precision bfloat16] [--compile]

A step draws its batch window by window from an array of uint16, goes forward and backward, clips
and updates, with nanoGPT's own hyperparameters. On a processor its train.py knows float32 alone;
with `--precision bfloat16` the forward pass is under autocast as it is on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gate import Gate, add_side_options
from engine import machine
from engine.bench.shapes import SHAPES
from engine.device import choose_device

CLIP = 1.0
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1e-3, 0.1, (0.9, 0.99)
TOKENS = 1_000_000


def load_model(checkout: Path, dropout: float = 0.0, **shape: Any) -> Any:
    """A fresh GPT of the checkout's own code. Raises FileNotFoundError without a model.py."""
    path = checkout / "model.py"
    if not path.is_file():
        raise FileNotFoundError(f"'{checkout}' is no checkout of nanoGPT: it has no model.py")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.GPT(module.GPTConfig(dropout=dropout, bias=False, **shape))


def draw_batch(
    data: np.ndarray, batch: int, context: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(B, T) inputs and targets at random places: one slice, one copy a window."""
    starts = torch.randint(len(data) - context, (batch,)).tolist()
    inputs, targets = (
        torch.stack(
            [torch.from_numpy(data[s + by : s + by + context].astype(np.int64)) for s in starts]
        )
        for by in (0, 1)
    )
    if device.type == "cuda":
        return (
            inputs.pin_memory().to(device, non_blocking=True),
            targets.pin_memory().to(device, non_blocking=True),
        )
    return inputs, targets


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def stepper(
    model: Any,
    data: np.ndarray,
    batch: int,
    context: int,
    device: torch.device,
    precision: str,
    compiled: bool,
) -> Callable[[float | None], None]:
    """One optimiser step a call, at the learning rate that is given (None: as it is)."""
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, device.type)
    run = torch.compile(model) if compiled else model
    drawn = draw_batch(data, batch, context, device)

    def step(lr: float | None = None) -> None:
        nonlocal drawn
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr
        with autocast(device, precision):
            _, loss = run(*drawn)
        drawn = draw_batch(data, batch, context, device)  # the next one, before the backward pass
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    add_side_options(parser)
    options = parser.parse_args()
    shape, device = SHAPES[options.shape], choose_device(options.device)
    torch.set_num_threads(machine.cores())
    torch.backends.cuda.matmul.allow_tf32 = True  # as its train.py does
    torch.manual_seed(1337)
    gate = Gate(device, shape.tokens_per_step, options.precision, compiled=options.compile)
    model = load_model(
        options.checkout,
        block_size=shape.context,
        vocab_size=shape.vocab_size,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.n_embd,
    ).to(device)
    data = np.random.default_rng(1).integers(shape.vocab_size, size=TOKENS, dtype=np.uint16)
    step = stepper(
        model, data, shape.batch, shape.context, device, options.precision, options.compile
    )
    while gate.passed():
        step(None)


if __name__ == "__main__":
    main()
