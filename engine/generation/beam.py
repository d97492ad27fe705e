"""Beam search: the likeliest continuations as a whole, not the likeliest token at each step.

Several beginnings grow side by side; at each token the best of all their continuations go on, and
those that end are kept by their score. As `transformers` defines it, for one prompt: the same
sequences and scores. Knows nothing of sampling settings but the length and the sinks of a stream.

Legend of shape suffixes: B beams, C width of the residual stream, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from engine.errors import EngineError, InputError
from engine.generation.decoding import Stopped, evaluating, new_cache, scores
from engine.generation.generate import prompt_ids
from engine.generation.params import SamplingParams
from engine.tokenizers import Tokenizer

if TYPE_CHECKING:
    from engine.generation.compiled import Steps
    from engine.model import GPT

MOST_BEAMS = 256
"""Each beam has a cache of its own; more beams do not make better text (Koehn & Knowles 2017)."""


@dataclass(frozen=True)
class Beams:
    """The settings of one search."""

    beams: int = 4
    """Texts that grow side by side; 1 is greedy."""
    max_tokens: int = 200
    """Tokens to generate at most."""
    length_penalty: float = 1.0
    """Exponent of the length that a sum of log-probabilities is divided by: 0 compares the sums,
    which favours short texts; 1 their means; more favours long ones."""
    early_stopping: bool | Literal["never"] = False
    """When to stop before `max_tokens`, once as many texts have ended as there are beams. True: at
    once. False: when the best that grows, were it to end here, would not be kept. "never": when it
    could not be kept at any length."""
    sinks: int = 4
    """As in `SamplingParams`: for texts that outgrow the context."""

    def __post_init__(self) -> None:
        if not 1 <= self.beams <= MOST_BEAMS:
            raise InputError(f"beams = {self.beams}: must lie between 1 and {MOST_BEAMS}")
        if not -10 <= self.length_penalty <= 10:
            raise InputError(
                f"length_penalty = {self.length_penalty}: must lie between -10 and 10",
                "1 compares means, 0 compares sums",
            )
        if self.early_stopping not in (True, False, "never"):
            raise InputError(
                f"early_stopping = '{self.early_stopping}': must be true, false or never"
            )
        self.of_cache()  # which checks the two fields that it shares

    def of_cache(self) -> SamplingParams:
        """What a cache is made by."""
        return SamplingParams(max_tokens=self.max_tokens, sinks=self.sinks)


@dataclass(frozen=True)
class Hypothesis:
    """One continuation that has ended."""

    tokens: tuple[int, ...]
    """The end-of-text token too, where it ended by it."""
    text: str
    score: float
    """Sum of the tokens' log-probabilities in nats / their number ^ length_penalty."""
    reason: str
    """eot or length."""


def beam_search(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    settings: Beams,
    *,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    crop: bool = False,
    steps: Steps | None = None,
) -> list[Hypothesis]:
    """The best continuations of `prompt`, at most `settings.beams`, the best first.

    A single beam is greedy generation: it ends with its first end-of-text token, whatever
    `early_stopping` says. `should_stop` is asked before each token; what has ended by then is
    returned, perhaps nothing. The prompt is taken as `engine.generation.generate.generate` takes
    it. Raises what that raises, and InputError when prompt and `max_tokens` together outgrow the
    context of a model with learned positions: beams that are read anew would not stay comparable.
    """
    ids = prompt_ids(model, tokenizer, prompt, crop)
    config = model.config
    total = len(ids) + settings.max_tokens
    if config.position == "learned" and total > config.context_length:
        raise InputError(
            f"{len(ids)} tokens of the prompt and max_tokens = {settings.max_tokens} outgrow the "
            f"model's context_length of {config.context_length}",
            f"set max_tokens to at most {max(0, config.context_length - len(ids))}, or shorten "
            "the prompt",
        )
    search = _Search(settings, tokenizer.eot_id)
    with torch.inference_mode(), evaluating(model), suppress(Stopped):
        _run(model, ids, search, device, should_stop, steps)
    return [
        Hypothesis(
            tokens=tuple(tokens),
            text=tokenizer.decode_continuation(
                tokens[:-1] if tokens[-1] == tokenizer.eot_id else tokens
            ),
            score=score,
            reason="eot" if tokens[-1] == tokenizer.eot_id else "length",
        )
        for score, tokens in search.ended
    ]


def _run(
    model: GPT,
    ids: list[int],
    search: _Search,
    device: torch.device,
    should_stop: Callable[[], bool],
    steps: Steps | None,
) -> None:
    """The prompt is read once, then every token of every beam. Raises Stopped."""
    unread = torch.tensor([ids], dtype=torch.long, device=device)
    no_padding = torch.zeros(1, dtype=torch.long, device=device)
    cache = new_cache(model, no_padding, len(ids), search.settings.of_cache(), device)
    if steps is not None:
        steps.begin()
    while True:
        if should_stop():
            raise Stopped
        logits_BV, _, _ = scores(model, cache, unread, should_stop, steps)
        V = logits_BV.shape[-1]
        sums_B1 = torch.tensor(search.sums, device=device)[:, None]
        sums_BV = logits_BV.log_softmax(-1) + sums_B1
        # Of twice as many as go on at most half end, for a beam can end by one token alone.
        best = sums_BV.flatten().topk(min(2 * search.settings.beams, sums_BV.numel()))
        sums, places = best.values.tolist(), best.indices.tolist()
        if not math.isfinite(sums[0]):
            raise EngineError(
                "the model's output is not finite: its weights have diverged",
                "generate from an earlier checkpoint",
            )
        candidates = [(total, *divmod(place, V)) for total, place in zip(sums, places, strict=True)]
        rows = len(search.growing)
        parents = search.advance(candidates)
        if search.over:
            return
        if parents != list(range(rows)):
            cache.select(torch.tensor(parents, dtype=torch.long, device=device))
        newest = [[tokens[-1]] for tokens in search.growing]
        unread = torch.tensor(newest, dtype=torch.long, device=device)


class _Search:
    """Texts that grow and texts that have ended; no model."""

    def __init__(self, settings: Beams, eot_id: int | None) -> None:
        self.settings, self.eot_id = settings, eot_id
        self.growing: list[list[int]] = [[]]
        self.sums: list[float] = [0.0]
        """Log-probabilities of those that grow, the likeliest first."""
        self.ended: list[tuple[float, list[int]]] = []
        """(score, tokens), the best first."""
        self.over = False

    def advance(self, candidates: Sequence[tuple[float, int, int]]) -> list[int]:
        """`candidates`: (sum, number of a growing text, its next token), the likeliest first. The
        numbers of the texts whose continuations grow on."""
        settings, length = self.settings, len(self.growing[0]) + 1
        growing, sums, parents = [], [], []
        for rank, (total, beam, token) in enumerate(candidates):
            tokens = [*self.growing[beam], token]
            if token == self.eot_id or length == settings.max_tokens:
                # One that ends below the first B would have made room for others that go on.
                if rank < settings.beams:
                    self.ended.append((total / length**settings.length_penalty, tokens))
            elif len(growing) < settings.beams:
                growing.append(tokens)
                sums.append(total)
                parents.append(beam)
        self.ended.sort(key=lambda scored: -scored[0])
        del self.ended[settings.beams :]
        self.growing, self.sums = growing, sums
        self.over = not growing or self._decided(length)
        return parents

    def _decided(self, length: int) -> bool:
        settings = self.settings
        if len(self.ended) < settings.beams:
            return False
        if settings.early_stopping is True or settings.beams == 1:
            return True
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = settings.max_tokens  # a negative sum divided by the most is the best it can be
        return self.sums[0] / length**settings.length_penalty <= self.ended[-1][0]
