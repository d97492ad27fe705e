"""The loop around the sampling functions: a prompt in, one generated token after another out.

Knows a model (tokens in, features and an output matrix) and a tokenizer; nothing of checkpoints,
terminals or training. It works on weights that are being trained: dropout is off only while a token
is computed, no gradient is recorded, and the global random state is never touched.

Shapes: N tokens in the window, C channels, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.errors import EngineError, InputError
from engine.evaluation import evaluation_mode
from engine.generation.params import SamplingParams
from engine.generation.sampling import new_generator, next_token_probabilities, sample
from engine.tokenizers import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from engine.model import GPT


@dataclass(frozen=True)
class GeneratedToken:
    """One token of the continuation.

    `probability` is the model's own: the softmax of its logits at temperature 1, before penalty and
    filters. So it means the same at all settings: how much the model expected this token, not how
    often these settings draw it. `alternatives` are the likeliest tokens by the same measure, the
    drawn one among them where it is one of them.
    """

    index: int
    """Counts from 0."""
    token: int
    text: str
    """Empty inside a multi-byte character, whose last token brings the whole, and for the end."""
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    reason: str = ""
    """Why generation ended here; empty on all but the last: length, stop, eot, cancelled."""


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams,
    *,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    alternatives: int = 5,
    crop: bool = False,
) -> Iterator[GeneratedToken]:
    """Continue `prompt`, a token at a time; there is always at least one, and the last says why.

    An empty prompt starts from the end-of-text token, as every document of the corpus did; where
    the tokenizer has none, from a newline, or else from id 0. While generating, the model sees the
    newest `context_length` tokens, and the repetition penalty looks at these.

    Stop strings may span tokens: a token whose text could be the beginning of one is held back
    until that is decided, and no text from the stop string on is ever yielded. `should_stop` is
    asked after each token: the one in hand is then the last, with reason "cancelled".

    Raises InputError, before anything is computed, for a prompt longer than the context; with
    `crop` its newest tokens are taken instead. Raises TokenizerError for text that the tokenizer
    has no tokens for, EngineError when the weights are not finite.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    context = model.config.context_length
    if len(prompt_ids) > context and not crop:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens, the model's context holds {context}",
            "shorten it (in the shell, generate --crop keeps its newest tokens)",
        )
    drawn = _draw(model, prompt_ids[-context:], params, device, alternatives)
    return _stream(drawn, tokenizer, params, should_stop)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens; for an empty one the single token that generation starts from."""
    ids = tokenizer.encode(prompt)
    if ids:
        return ids
    if tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return tokenizer.encode("\n")[:1] or [0]
    except InputError:  # a character vocabulary without a newline
        return [0]


@dataclass(frozen=True)
class _Drawn:
    token: int
    probability: float
    likeliest: Sequence[tuple[int, float]]


def _draw(
    model: GPT,
    prompt_ids: list[int],
    params: SamplingParams,
    device: torch.device,
    n_likeliest: int,
) -> Iterator[_Drawn]:
    """Tokens without end. They stay on the device; one small copy a token comes to the host."""
    generator = new_generator(params.seed, device)
    context = model.config.context_length
    window_N = torch.tensor(prompt_ids, dtype=torch.long, device=device)
    n_likeliest = min(n_likeliest, model.vocab_size)
    while True:
        with torch.no_grad(), evaluation_mode(model):
            logits_V = _last_logits(model, window_N)
            own_V = logits_V.softmax(0)
            token = sample(next_token_probabilities(logits_V, window_N, params), generator)
            window_N = torch.cat((window_N, token[None]))[-context:]
            best = own_V.topk(n_likeliest)
            # As one float32 vector: ids are exact up to 2^24, far above any vocabulary.
            ids = torch.cat((token[None], best.indices)).float()
            told = torch.cat((ids, own_V[token][None], best.values)).tolist()
        if not math.isfinite(told[n_likeliest + 1]):
            raise EngineError(
                "the model's output is not finite: its weights have diverged",
                "generate from an earlier checkpoint",
            )
        token_ids = [int(number) for number in told[: n_likeliest + 1]]
        probability, *best_probabilities = told[n_likeliest + 1 :]
        likeliest = list(zip(token_ids[1:], best_probabilities, strict=True))
        yield _Drawn(token_ids[0], probability, likeliest)


def _last_logits(model: GPT, window_N: Tensor) -> Tensor:
    """Logits (V,) after the last token, in float32: the output matrix sees one position only."""
    features_C = model.features(window_N[None])[0, -1]
    return model.lm_head(features_C).float()


def _stream(
    drawn: Iterator[_Drawn],
    tokenizer: Tokenizer,
    params: SamplingParams,
    should_stop: Callable[[], bool],
) -> Iterator[GeneratedToken]:
    decoder = StreamDecoder(tokenizer)
    held = _Held(params.stop)
    for index, this in enumerate(drawn):
        ended = this.token == tokenizer.eot_id
        text = decoder.push(this.token)
        reason = "eot" if ended else "length" if index + 1 == params.max_tokens else ""
        if not reason and should_stop():
            reason = "cancelled"
        if reason:
            text += decoder.flush()
        names = tuple((tokenizer.token_text(token), chance) for token, chance in this.likeliest)
        held.add(GeneratedToken(index, this.token, text, this.probability, names, reason))
        yield from held.release()
        if reason or held.stopped:
            return


class _Held:
    """Tokens whose text may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.stopped = False
        self._tokens: list[GeneratedToken] = []

    def add(self, token: GeneratedToken) -> None:
        self._tokens.append(token)

    def release(self) -> list[GeneratedToken]:
        """What can be shown now, oldest first; the rest is held.

        When a stop string is complete, the token that it begins in is the last one, cut before it.
        """
        text = "".join(token.text for token in self._tokens)
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._cut(min(found))
        if self._tokens[-1].reason:
            safe = len(text)
        else:
            safe = len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        released: list[GeneratedToken] = []
        end = 0
        while self._tokens and (end := end + len(self._tokens[0].text)) <= safe:
            released.append(self._tokens.pop(0))
        return released

    def _cut(self, at: int) -> list[GeneratedToken]:
        shown: list[GeneratedToken] = []
        start = 0
        for token in self._tokens:
            if start + len(token.text) > at:
                return [*shown, replace(token, text=token.text[: at - start], reason="stop")]
            shown.append(token)
            start += len(token.text)
        raise AssertionError("a stop string lies within the held text")


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, the whole excluded."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
