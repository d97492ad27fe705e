"""A text that is there already, judged by a model: how likely each of its tokens was.

The same measure as of generated tokens: the model's own distribution, at temperature 1. So what one
model wrote can be held against another. Knows a model and the names of tokens; nothing of who wrote
the text.

Legend of shape suffixes: T tokens, C width of the residual stream, V vocabulary, K likeliest
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.errors import EngineError, InputError
from engine.evaluation import evaluation_mode
from engine.tokenizers import Tokenizer

if TYPE_CHECKING:
    from engine.model import GPT

CHUNK = 128
"""Positions whose distributions are in memory at once: of GPT-2's vocabulary 26 MB."""


@dataclass(frozen=True)
class ScoredToken:
    """One token of a text, as the model expected it after all that stands before."""

    token: int
    probability: float
    entropy: float
    """Nats, of the distribution that the token is one of."""
    alternatives: tuple[tuple[str, float], ...]
    """The likeliest tokens in its place, by name, the likeliest first."""
    alternative_ids: tuple[int, ...]


def score(
    model: GPT,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    device: torch.device,
    first: int = 1,
    alternatives: int = 5,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[ScoredToken]:
    """What `model` makes of the tokens of `ids` from the one numbered `first` on.

    Token t is judged by all before it, while they fit the context; later ones by at least the
    newest half of a context, in overlapping windows (as the evaluation does it). Empty when
    `should_stop` says so between two windows. Raises InputError when `first` is 0 (nothing stands
    before token 0) or an id is not of the vocabulary, EngineError when the weights are not finite.
    """
    if first < 1:
        raise InputError(f"first = {first}: must be at least 1", "token 0 has nothing before it")
    foreign = [token for token in ids if not 0 <= token < model.vocab_size]
    if foreign:
        raise InputError(f"token {foreign[0]}: the vocabulary has {model.vocab_size}")
    scored: list[ScoredToken] = []
    end = first  # tokens before it are judged, or need not be
    with torch.inference_mode(), evaluation_mode(model):
        while end < len(ids):
            if should_stop():
                return []
            start = _start(end, len(ids), model.config.context_length)
            stop = min(start + model.config.context_length + 1, len(ids))
            window_T = torch.tensor(ids[start:stop], dtype=torch.long, device=device)
            features_TC = model.features(window_T[None, :-1])[0, end - 1 - start :]
            for at in range(0, len(features_TC), CHUNK):
                chunk_TC = features_TC[at : at + CHUNK]
                targets_T = window_T[end - start + at :][: len(chunk_TC)]
                scored += _judged(model, tokenizer, chunk_TC, targets_T, alternatives)
            end = stop
    return scored


def _start(end: int, length: int, context: int) -> int:
    """The first token of the window that judges token `end` and those after it."""
    if end <= context:
        return 0
    return min(end - max(1, context // 2), length - 1 - context)


def _judged(
    model: GPT, tokenizer: Tokenizer, features_TC: Tensor, targets_T: Tensor, alternatives: int
) -> list[ScoredToken]:
    log_TV = model.logits(features_TC).float().log_softmax(-1)
    chances_TV = log_TV.exp()
    best = chances_TV.topk(min(alternatives, chances_TV.shape[-1]))
    columns = zip(
        targets_T.tolist(),
        chances_TV.gather(-1, targets_T[:, None])[:, 0].tolist(),
        torch.special.entr(chances_TV).sum(-1).tolist(),
        best.indices.tolist(),
        best.values.tolist(),
        strict=True,
    )
    scored = []
    for token, probability, entropy, ids_K, chances_K in columns:
        if not math.isfinite(probability):
            raise EngineError(
                "the model's output is not finite: its weights have diverged",
                "score with an earlier checkpoint",
            )
        names = [tokenizer.token_text(likely) for likely in ids_K]
        pairs = tuple(zip(names, chances_K, strict=True))
        scored.append(ScoredToken(token, probability, entropy, pairs, tuple(ids_K)))
    return scored
