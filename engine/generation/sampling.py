"""From one position's logits to the next token: small pure functions, in the order they apply.

Knows nothing of models, tokenizers or text. Order and definitions are those of transformers'
logits processors (repetition penalty, temperature, top-k, top-p, min-p); a filter sets what it
drops to minus infinity, so that it can never be drawn. Every filter keeps at least one token, and
among equally likely tokens the lower ids stay: the result never depends on how a device sorts.

Shapes: V vocabulary, N tokens already there, T tokens to come; any axes before them are rows, each
by itself.
Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.generation.params import SamplingParams

DROPPED = float("-inf")
# Temperatures below this would underflow to a division by zero in float32.
SMALLEST_TEMPERATURE = torch.finfo(torch.float32).tiny
LIKELIEST = 5
"""Tokens that a compiled step tells of with each draw: as many as a console shows."""
MOST_RACES, RACED = 16, 8192
"""Tokens whose races are drawn at once, and numbers of them for a text: to call the generator costs
more than these numbers."""


def penalize_repetition(logits_V: Tensor, previous_N: Tensor, penalty: float) -> Tensor:
    """Make tokens of `previous_N` less likely, once each however often they occur.

    Positive logits are divided by `penalty`, negative ones multiplied (CTRL, Keskar et al. 2019):
    dividing a negative logit would raise it.
    """
    if penalty == 1.0 or not previous_N.shape[-1]:
        return logits_V
    seen_N = logits_V.gather(-1, previous_N)
    lowered_N = torch.where(seen_N < 0, seen_N * penalty, seen_N / penalty)
    return logits_V.scatter(-1, previous_N, lowered_N)


def apply_temperature(logits_V: Tensor, temperature: float | Tensor) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution; `temperature` is above 0.

    The maximum is subtracted first: softmax does not see it, and a tiny temperature cannot overflow
    the likeliest token to infinity.
    """
    return (logits_V - logits_V.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits_V: Tensor, k: int) -> Tensor:
    """Keep exactly the `k` likeliest tokens; 0 is off."""
    if k <= 0 or k >= logits_V.shape[-1]:
        return logits_V
    smallest_kept = logits_V.topk(k).values[..., -1:]
    above_V = logits_V > smallest_kept
    level_V = logits_V == smallest_kept
    room = k - above_V.sum(-1, keepdim=True)
    kept_V = above_V | (level_V & (level_V.cumsum(-1) <= room))
    return logits_V.masked_fill(~kept_V, DROPPED)


def keep_top_p(logits_V: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens until their mass reaches `p`, the crossing token included.

    Nucleus sampling (Holtzman et al. 2020); 1 is off.
    """
    if p >= 1.0:
        return logits_V
    sorted_V, order_V = logits_V.sort(descending=True, stable=True)
    probabilities_V = sorted_V.softmax(-1)
    mass_before_V = probabilities_V.cumsum(-1) - probabilities_V
    kept_V = mass_before_V < p
    kept_V[..., 0] = True
    return logits_V.masked_fill(~torch.empty_like(kept_V).scatter(-1, order_V, kept_V), DROPPED)


def keep_min_p(logits_V: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least `min_p` times as likely as the likeliest; 0 is off.

    Adapts to how sure the model is (Nguyen et al. 2024). Also at 1 the likeliest stays.
    """
    if min_p <= 0.0:
        return logits_V
    probabilities_V = logits_V.softmax(-1)
    likeliest = probabilities_V.amax(-1, keepdim=True)
    return logits_V.masked_fill(probabilities_V < min_p * likeliest, DROPPED)


def next_token_probabilities(
    logits_V: Tensor, previous_N: Tensor, params: SamplingParams
) -> Tensor:
    """The distribution (V,) that the next token is drawn from, in float32.

    `previous_N`: the token ids that the repetition penalty looks at. Temperature 0 puts all mass on
    the likeliest token after the penalty (the lowest id among equals).
    """
    logits_V = penalize_repetition(logits_V.float(), previous_N, params.repetition_penalty)
    if params.temperature < SMALLEST_TEMPERATURE:
        best = logits_V.argmax(-1, keepdim=True)
        return torch.zeros_like(logits_V).scatter(-1, best, 1.0)
    logits_V = apply_temperature(logits_V, params.temperature)
    logits_V = keep_top_k(logits_V, params.top_k)
    logits_V = keep_top_p(logits_V, params.top_p)
    logits_V = keep_min_p(logits_V, params.min_p)
    return logits_V.softmax(-1)


def exponential_races(
    generators: Sequence[torch.Generator], vocab_size: int, device: torch.device
) -> list[Tensor]:
    """(B, V) of Exp(1) for each of the next tokens, each row drawn with its own generator: a row
    alone draws the same. How many tokens follows from the vocabulary alone, for the same reason."""
    T = max(1, min(MOST_RACES, RACED // vocab_size))
    races_BTV = torch.empty(len(generators), T, vocab_size, device=device)
    for races_TV, generator in zip(races_BTV, generators, strict=True):
        races_TV.exponential_(1.0, generator=generator)
    return list(races_BTV.transpose(0, 1).contiguous().unbind())


def winners(probabilities_BV: Tensor, race_BV: Tensor) -> Tensor:
    """(B,) token ids drawn from `probabilities_BV`.

    With q ~ Exp(1) each, argmax(p / q) picks token i with probability p_i. Unlike torch.multinomial
    it neither waits for the device nor aborts it when weights have diverged to NaN. A draw of
    exactly 0 would make 0 / 0 of a dropped token, hence the clamp.
    """
    return (probabilities_BV / race_BV.clamp(min=SMALLEST_TEMPERATURE)).argmax(-1)


def tell(own_BV: Tensor, entropy_B: Tensor, tokens_B: Tensor, likeliest: int) -> Tensor:
    """All that comes to the host of a draw, (B, 3 + 2K): token, its probability, entropy, ids and
    probabilities of the K `likeliest`. As float32, in which ids are exact up to 2^24, far above any
    vocabulary."""
    best = own_BV.topk(likeliest)
    mine_B1 = own_BV.gather(-1, tokens_B[:, None])
    ids_B1 = tokens_B[:, None].float()
    return torch.cat(
        (ids_B1, mine_B1, entropy_B[:, None], best.indices.float(), best.values), dim=-1
    )


def new_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """A generator of its own, so that sampling never moves the random state of a training.

    The same seed gives the same tokens on the same kind of device. None takes a fresh seed from the
    operating system.
    """
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
