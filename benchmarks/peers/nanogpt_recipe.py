"""nanoGPT's recipes for tiny Shakespeare by characters, with the loss over the whole split.

    python -m benchmarks.peers.nanogpt_recipe --checkout DIR --text input.txt --recipe cpu

`cpu` is its README's for a processor (float32, eager, 2 000 steps), `cuda` its
config/train_shakespeare_char.py (bfloat16, compiled, 5 000 steps). One JSON line an evaluation: the
loss, and by the clock of the wall when the steps since the one before `began` and `ended`, as the
`first` step did, which may have compiled.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.nanogpt import autocast, load_model, stepper
from engine import machine
from engine.bench.limits import synchronize
from engine.config.sections import ScheduleConfig
from engine.data import split
from engine.planner import count_windows
from engine.schedule import learning_rate

VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Recipe:
    """A network, a batch and a schedule. `evaluate`: steps between two looks at the loss."""

    n_embd: int
    n_layer: int
    n_head: int
    context: int
    batch: int
    steps: int
    dropout: float
    precision: str
    compiled: bool
    evaluate: int


RECIPES = {
    "cpu": Recipe(128, 4, 4, 64, 12, 2000, 0.0, "float32", False, 250),
    "cuda": Recipe(384, 6, 6, 256, 64, 5000, 0.2, "bfloat16", True, 250),
}
SCHEDULE = ScheduleConfig(kind="cosine", warmup_steps=100, min_lr=1e-4)
PEAK_RATE = 1e-3


def encode(text: str) -> tuple[np.ndarray, int]:
    """Ids by code point, and how many there are."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    known, ids = np.unique(codes, return_inverse=True)
    return ids.astype(np.uint16), len(known)


@torch.no_grad()
def whole_loss(model: Any, data: np.ndarray, recipe: Recipe, device: torch.device) -> float:
    """Mean nats a token over the windows of the validation split, cut as `engine.data` does."""
    boundary = split(len(data), VAL_FRACTION, recipe.context)
    count = count_windows(len(data) - boundary, recipe.context)
    starts = boundary + recipe.context * np.arange(count)
    places = np.arange(recipe.context + 1)
    total, model = 0.0, model.eval()
    for first in range(0, count, 64):
        chosen = data[starts[first : first + 64, None] + places].astype(np.int64)
        windows = torch.from_numpy(chosen).to(device)
        with autocast(device, recipe.precision):
            _, loss = model(windows[:, :-1], windows[:, 1:].contiguous())
        total += float(loss) * len(windows)
    model.train()
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--recipe", choices=RECIPES, default="cpu")
    parser.add_argument("--steps", type=int, default=0, help="stop early, as a trial")
    options = parser.parse_args()
    recipe, device = RECIPES[options.recipe], torch.device(options.recipe)
    torch.set_num_threads(machine.cores())
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(1337)
    data, vocab_size = encode(options.text.read_text(encoding="utf-8"))
    model = load_model(
        options.checkout,
        block_size=recipe.context,
        vocab_size=vocab_size,
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        n_embd=recipe.n_embd,
        dropout=recipe.dropout,
    ).to(device)
    step = stepper(
        model,
        data[: split(len(data), VAL_FRACTION, recipe.context)],
        recipe.batch,
        recipe.context,
        device,
        recipe.precision,
        recipe.compiled,
    )
    first: tuple[float, float] | None = None
    began = time.time()
    for number in range(options.steps or recipe.steps):
        step(learning_rate(number, SCHEDULE, PEAK_RATE, recipe.steps))
        if first is None:
            synchronize(device)
            first = began, time.time()
        if (number + 1) % recipe.evaluate and number + 1 != (options.steps or recipe.steps):
            continue
        synchronize(device)
        ended = time.time()
        loss = whole_loss(model, data, recipe, device)
        record = {"step": number + 1, "val_loss": loss, "first": first}
        print(json.dumps(record | {"began": began, "ended": ended}), flush=True)
        began = time.time()


if __name__ == "__main__":
    main()
