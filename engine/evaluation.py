"""How well a model predicts a text: mean loss, perplexity, bits per byte over a stated part of it.

Knows windows of tokens and a model that gives logits; nothing of corpora, checkpoints or runs
(`engine.measure` brings those together).

What the figures mean. Windows are cut one `stride` apart and each target is scored once: with a
stride below the context the windows overlap, and all but the first score only their last `stride`
targets, the earlier ones serving as context. Targets after the last whole window are not scored;
`tokens` says how many were. Loss is the mean over exactly those, perplexity its exponential. Bits
per byte is `nats / (ln 2 · bytes)` over the scored targets that stand for bytes: special tokens
(end of text, unknown word) count in the loss but bring neither bytes nor nats to bits per byte.

Shapes: B batch, T context, V vocabulary, W windows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.device import autocast
from engine.errors import CorpusError

if TYPE_CHECKING:
    from engine.data import Windows


@dataclass(frozen=True)
class Evaluation:
    """The result, with all that it takes to say what it means."""

    loss: float
    """Mean nats per scored token."""
    perplexity: float
    bits_per_byte: float | None
    """None when the byte lengths are not known, or no scored token has any."""
    tokens: int
    """Targets scored."""
    bytes: int
    """Bytes of text that the scored targets stand for; 0 when not known."""
    windows: int
    context: int
    stride: int
    seconds: float


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, and every submodule back in its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def evaluate(
    model: nn.Module,
    windows: Windows,
    byte_lengths: np.ndarray | None,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    max_tokens: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation | None:
    """Score `windows` with `model`: its forward takes tokens_BT and gives logits_BTV.

    `byte_lengths` (V,): bytes of each token, 0 for special ones. `max_tokens` scores only the first
    windows that hold no more (at least one window); 0 all. `should_stop` is asked between batches:
    then the answer is None. `progress(done, total)` counts windows. The model's mode and the global
    random state are left as they were; the result does not depend on `batch_size`.

    Raises CorpusError when there is no window.
    """
    if not len(windows):
        raise CorpusError(
            f"no window of {windows.context} tokens to evaluate",
            "choose a larger part of the corpus, or a shorter context",
        )
    context, stride = windows.context, windows.stride or windows.context
    n_windows = _window_count(windows, stride, max_tokens)
    lengths = None if byte_lengths is None else np.asarray(byte_lengths)
    has_bytes_V = None if lengths is None else torch.from_numpy(lengths > 0).to(device)

    began = time.perf_counter()
    nats_W: list[Tensor] = []  # float32 sums of a window each; added up in float64 at the end
    byte_nats_W: list[Tensor] = []
    n_bytes = 0
    with evaluation_mode(model):
        for first in range(0, n_windows, batch_size):
            if should_stop():
                return None
            indices = np.arange(first, min(first + batch_size, n_windows))
            batch = windows.batch(indices)
            scored = _scored(indices, context, stride)
            tokens_BT = torch.from_numpy(batch[:, :-1]).to(device)
            targets_BT = torch.from_numpy(batch[:, 1:]).to(device)
            scored_BT = torch.from_numpy(scored).to(device)
            with autocast(device, precision):
                logits_BTV = model(tokens_BT)
            losses_BT = F.cross_entropy(
                logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction="none"
            ).view_as(targets_BT)
            # Selected, not multiplied by 0: an infinite loss outside the scored part stays outside.
            losses_BT = losses_BT.where(scored_BT, 0.0)
            nats_W.append(losses_BT.sum(1))
            if lengths is not None and has_bytes_V is not None:
                byte_nats_W.append(losses_BT.where(has_bytes_V[targets_BT], 0.0).sum(1))
                n_bytes += int(lengths[batch[:, 1:]][scored].sum())
            if progress is not None:
                progress(int(indices[-1]) + 1, n_windows)

    n_tokens = context + (n_windows - 1) * min(stride, context)
    loss = _total(nats_W) / n_tokens
    return Evaluation(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=_total(byte_nats_W) / (math.log(2) * n_bytes) if n_bytes else None,
        tokens=n_tokens,
        bytes=n_bytes,
        windows=n_windows,
        context=context,
        stride=stride,
        seconds=time.perf_counter() - began,
    )


def perplexity(loss: float) -> float:
    """`exp(loss)`, infinite instead of an overflow."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _window_count(windows: Windows, stride: int, max_tokens: int) -> int:
    """How many of the first windows score at most `max_tokens` targets; at least one."""
    if max_tokens <= 0:
        return len(windows)
    beyond_first = max(0, max_tokens - windows.context) // min(stride, windows.context)
    return min(len(windows), 1 + beyond_first)


def _scored(indices: np.ndarray, context: int, stride: int) -> np.ndarray:
    """(B, T) truth of whether a target is scored in this window, not in an earlier one."""
    first_new = np.where(indices == 0, 0, max(0, context - stride))
    return np.arange(context)[None, :] >= first_new[:, None]


def _total(sums_W: list[Tensor]) -> float:
    return float(torch.cat(sums_W).cpu().double().sum())
