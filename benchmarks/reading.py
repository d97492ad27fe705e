"""A model reads a text token by token through a cache; how surprised it was, and at what memory.

Knows models, caches and tokens; nothing of runs and tables.

Legend of shape suffixes: R rows (texts read side by side), N tokens of a text, T positions, S keys,
H heads, G heads of keys and values, D width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from engine.model import GPT, KVCache
from engine.model.attend import Sight, reference_attention


@dataclass(frozen=True)
class Read:
    """What reading gave."""

    losses_RN: Tensor
    """Nats of each token but the first, (R, N - 1)."""
    memory: list[tuple[int, int, int]]
    """(tokens read, bytes of the cache in use, resident bytes of the process) on the way."""


@torch.no_grad()
def read(model: GPT, tokens_RN: Tensor, stream: int | None, marks: list[int]) -> Read:
    """Read every row from its first token on, one token at a time.

    `stream`: sinks of a rolling cache as long as the trained context; None keeps everything, and
    goes on to positions that were never trained. Memory is noted at `marks`, counts of tokens.
    """
    R, N = tokens_RN.shape
    model = model.eval() if stream is not None else _with_context(model, N)
    cache = KVCache(model.config, R, N, device=tokens_RN.device, stream=stream)
    process = psutil.Process()
    losses, memory = [], []
    for n in range(N - 1):
        logits_RV = model(tokens_RN[:, n : n + 1], cache=cache)[:, -1]
        losses.append(functional.cross_entropy(logits_RV, tokens_RN[:, n + 1], reduction="none"))
        if n + 1 in marks:
            memory.append((n + 1, _bytes_in_use(cache, n + 1), process.memory_info().rss))
    return Read(torch.stack(losses, dim=1), memory)


@torch.no_grad()
def read_within(model: GPT, tokens_RN: Tensor) -> Tensor:
    """Nats of the same tokens read within the trained context, (R, N - 1).

    In windows half a context apart, of which the second half counts: every token is predicted from
    at least half a context and at most a whole one. The first window counts whole. Each begins
    with its row's first token, as every sequence did in training.
    """
    R, N = tokens_RN.shape
    context = model.config.context_length
    half = context // 2
    losses_RN = torch.empty(R, N - 1)
    starts = [*range(0, N - 1 - context, half), N - 1 - context]
    for start in starts:
        window_RT = tokens_RN[:, start : start + context + 1].clone()
        window_RT[:, 0] = tokens_RN[:, 0]
        logits_RTV = model(window_RT[:, :-1])
        nats_RT = functional.cross_entropy(
            logits_RTV.transpose(1, 2), window_RT[:, 1:], reduction="none"
        )
        counted = 0 if start == 0 else half
        losses_RN[:, start + counted : start + context] = nats_RT[:, counted:]
    return losses_RN


@dataclass(frozen=True)
class Attention:
    """Where attention goes, by layer and head: means over the queries that were counted."""

    first: list[list[float]]
    """On the first position: 1 is all of it."""
    learned: list[list[float]]
    """On the learned sink; empty for a model that has none."""
    values: list[list[float]]
    """Length of the first position's value, over the mean length of the others'."""
    even: float
    """What the first position would get if all positions got the same."""


@torch.no_grad()
def attention_mass(model: GPT, tokens_RN: Tensor, queries_RN: Tensor | None = None) -> Attention:
    """How much of the attention the first position of a context takes, and what it gives for it.

    Counted are the queries of a context's second half, of those only the ones that `queries_RN`
    (as `tokens_RN`, bool) has, when it is given. Raises ValueError when it has none.
    """
    context = model.config.context_length
    half = context // 2
    counted_RT = torch.ones(len(tokens_RN), context - half)
    if queries_RN is not None:
        counted_RT = queries_RN[:, half:context].float()
    if not counted_RT.any():
        raise ValueError("no query is counted")
    shares_RT = counted_RT / counted_RT.sum()
    first: list[list[float]] = []
    learned: list[list[float]] = []
    values: list[list[float]] = []

    def watch(
        q_BHTD: Tensor,
        k_BGSD: Tensor,
        v_BGSD: Tensor,
        sight: Sight,
        sinks_H: Tensor | None,
        dropout: float,
    ) -> Tensor:
        # Values that are 1 on one position alone give back its weight; all ones, the weights' sum.
        marks_BGSD = torch.zeros_like(v_BGSD)
        marks_BGSD[:, :, 0, 0] = 1
        marks_BGSD[..., 1] = 1
        seen_BHTD = reference_attention(q_BHTD, k_BGSD, marks_BGSD, sight, sinks_H, 0.0)
        mean_HD = torch.einsum("bt,bhtd->hd", shares_RT, seen_BHTD[:, :, half:])
        first.append(mean_HD[:, 0].tolist())
        if sinks_H is not None:
            learned.append((1 - mean_HD[:, 1]).tolist())
        lengths_BGS = v_BGSD.norm(dim=-1)
        length_G = lengths_BGS[:, :, 0].mean(0) / lengths_BGS[:, :, 1:].mean((0, 2))
        values.append(length_G.repeat_interleave(q_BHTD.shape[1] // len(length_G)).tolist())
        return reference_attention(q_BHTD, k_BGSD, v_BGSD, sight, sinks_H, dropout)

    own = [block.attn.attend for block in model.blocks]
    try:
        for block in model.blocks:
            block.attn.attend = watch
        model(tokens_RN[:, :context])
    finally:
        for block, attend in zip(model.blocks, own, strict=True):
            block.attn.attend = attend
    even = (shares_RT / torch.arange(half + 1, context + 1)).sum().item()
    return Attention(first, learned, values, even)


def perplexity(losses: Tensor) -> float:
    return math.exp(losses.double().mean().item())


def _with_context(model: GPT, context: int) -> GPT:
    """The same weights in a network that is allowed to read on. With RoPE none depends on it."""
    with torch.device("meta"):
        longer = GPT(replace(model.config, context_length=context), model.vocab_size)
    longer.load_state_dict(model.state_dict(), assign=True)
    return longer.eval()


def _bytes_in_use(cache: KVCache, read: int) -> int:
    """Of a cache that keeps everything only the part that holds something, since it grows there."""
    slots = cache.layers[0].k.shape[2]
    return cache.bytes * min(read, slots) // slots
