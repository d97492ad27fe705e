"""The loop around a decoding: prompts in, one piece of text after another out.

Knows a tokenizer and where a text ends; nothing of checkpoints, terminals or training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from engine.errors import InputError
from engine.generation.decoding import Decoding, Drawn, Stopped, row_seed
from engine.generation.params import SamplingParams
from engine.generation.stopping import Held
from engine.tokenizers import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from engine.generation.compiled import Steps
    from engine.model import GPT


class GeneratedToken(NamedTuple):
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
    entropy: float = 0.0
    """Nats, of the same distribution: 0 where the model was sure, ln(vocabulary) where it was not
    at all."""
    alternative_ids: tuple[int, ...] = ()
    """The tokens of `alternatives`: what a branch goes on from."""
    cache_bytes: int = 0
    """Memory of the keys and values kept for this text (of a batch: for all of them)."""


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    params: SamplingParams,
    *,
    device: torch.device,
    continued: Sequence[int] = (),
    should_stop: Callable[[], bool] = lambda: False,
    alternatives: int = 5,
    crop: bool = False,
    steps: Steps | None = None,
) -> Iterator[GeneratedToken]:
    """Continue `prompt`, a text or its token ids, a token at a time; the last one says why it ends.

    An empty prompt starts from the end-of-text token, as every document of the corpus did; where
    the tokenizer has none, from a newline, or else from id 0. `continued` are tokens that follow
    the prompt already, as of a text from which this one branches off: the last of them is the
    first token given out, with the probability that the model gives it. How a text is kept that
    outgrows the context is told in `engine.generation.decoding`; the repetition penalty looks at
    the newest `context_length` tokens.

    Stop strings may span tokens: a token whose text could be the beginning of one is held back
    until that is decided, and no text from the stop string on is ever yielded. `should_stop` is
    asked after each token: the one in hand is then the last, with reason "cancelled". It is asked
    too while a long prompt is read: then no token comes at all. `steps` are compiled steps of the
    model, used where they are ready: the tokens are the same but for rounding.

    Raises InputError, before anything is computed, for a prompt longer than the context of a model
    with learned positions; with `crop` the newest tokens of a prompt longer than the context are
    taken, whatever the positions. Raises TokenizerError for text that the tokenizer has no tokens
    for, EngineError when the weights are not finite.
    """
    kept, first = list(continued[:-1]), list(continued[-1:])
    _check_ids(model, first)
    if kept:
        prompt = [*(encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt), *kept]
    # A text that outgrew the context of learned positions has lost its beginning already.
    outgrown = bool(kept) and model.config.position == "learned"
    ids = prompt_ids(model, tokenizer, prompt, crop or outgrown)
    decoding = Decoding(
        model,
        [ids],
        params,
        device=device,
        likeliest=alternatives,
        should_stop=should_stop,
        steps=steps,
    )
    decoding.first = first
    text = _Text(tokenizer, params, cache(tokenizer.token_text))
    text.skip(kept)
    rows = _run(decoding, [text], should_stop)
    return (token for _, token in rows)


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    params: SamplingParams,
    *,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    alternatives: int = 5,
    crop: bool = False,
    steps: Steps | None = None,
) -> Iterator[tuple[int, GeneratedToken]]:
    """Continue several prompts at once: (number of the prompt, its next token), each as `generate`.

    Prompt i draws with seed + i: alone with that seed it gives the same tokens (but for rounding,
    which may decide between two equally likely ones). A text that has ended leaves the batch.
    Texts of different lengths that outgrow the context of a model without learned positions are
    generated one after the other.
    """
    ids = [prompt_ids(model, tokenizer, prompt, crop) for prompt in prompts]
    if not ids:
        return iter(())
    if _streams_apart(model, ids, params):
        return _one_by_one(model, tokenizer, ids, params, device, should_stop, alternatives, steps)
    decoding = Decoding(
        model,
        ids,
        params,
        device=device,
        likeliest=alternatives,
        should_stop=should_stop,
        steps=steps,
    )
    name = cache(tokenizer.token_text)
    return _run(decoding, [_Text(tokenizer, params, name) for _ in ids], should_stop)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens, after those that the tokenizer's file puts before every text; for an
    empty one the single token that generation starts from."""
    ids = [*tokenizer.beginning, *tokenizer.encode(prompt)]
    if ids:
        return ids
    if tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return tokenizer.encode("\n")[:1] or [0]
    except InputError:  # a character vocabulary without a newline
        return [0]


def prompt_ids(
    model: GPT, tokenizer: Tokenizer, prompt: str | Sequence[int], crop: bool = False
) -> list[int]:
    """The tokens that the model reads of `prompt`. Raises what `generate` raises at once."""
    if isinstance(prompt, str):
        ids = encode_prompt(tokenizer, prompt)
    else:
        ids = list(prompt) or encode_prompt(tokenizer, "")
        _check_ids(model, ids)
    context = model.config.context_length
    if crop:
        return ids[-context:]
    if len(ids) > context and model.config.position == "learned":
        raise InputError(
            f"the prompt has {len(ids)} tokens, the model's context holds {context}",
            "shorten it (in the shell, generate --crop keeps its newest tokens)",
        )
    return ids


def _check_ids(model: GPT, ids: Sequence[int]) -> None:
    foreign = [number for number in ids if not 0 <= number < model.vocab_size]
    if foreign:
        raise InputError(
            f"token {foreign[0]} of the prompt: the vocabulary has {model.vocab_size}",
            f"ids lie between 0 and {model.vocab_size - 1}",
        )


def _streams_apart(model: GPT, ids: Sequence[Sequence[int]], params: SamplingParams) -> bool:
    config, lengths = model.config, {len(prompt) for prompt in ids}
    outgrows = max(lengths) + params.max_tokens - 1 > config.context_length
    relative = config.position != "learned" and not config.windowed
    return len(lengths) > 1 and outgrows and relative


def _one_by_one(
    model: GPT,
    tokenizer: Tokenizer,
    ids: Sequence[Sequence[int]],
    params: SamplingParams,
    device: torch.device,
    should_stop: Callable[[], bool],
    alternatives: int,
    steps: Steps | None,
) -> Iterator[tuple[int, GeneratedToken]]:
    for row, prompt in enumerate(ids):
        alone = replace(params, seed=row_seed(params.seed, row))
        for token in generate(
            model,
            tokenizer,
            prompt,
            alone,
            device=device,
            should_stop=should_stop,
            alternatives=alternatives,
            steps=steps,
        ):
            yield row, token
        if should_stop():
            return


def _run(
    decoding: Decoding, texts: Sequence[_Text], should_stop: Callable[[], bool]
) -> Iterator[tuple[int, GeneratedToken]]:
    """All texts to their ends: (row, token)."""
    going = list(enumerate(texts))
    while going:
        try:
            drawn = decoding.next()
        except Stopped:
            return
        cancelled, cache_bytes = should_stop(), decoding.cache.bytes
        for (row, text), this in zip(going, drawn, strict=True):
            for token in text.push(this, cancelled, cache_bytes):
                yield row, token
        alive = [at for at, (_, text) in enumerate(going) if not text.ended]
        if len(alive) < len(going):
            going = [going[at] for at in alive]
            if going:
                decoding.keep(alive)


class _Text:
    """One continuation: from drawn tokens to shown ones."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, name: Callable[[int], str]
    ) -> None:
        """`name`: of a token for people."""
        self.ended = False
        self._eot_id, self._most = tokenizer.eot_id, params.max_tokens
        self._name = name
        self._decoder = StreamDecoder(tokenizer)
        self._held = Held(params.stop)
        self._count = 0

    def skip(self, tokens: Sequence[int]) -> None:
        """These are written already: a character that they begin is ended by the next token."""
        for token in tokens:
            self._decoder.push(token)

    def push(self, drawn: Drawn, cancelled: bool, cache_bytes: int) -> list[GeneratedToken]:
        """What can be shown after this token. With `cancelled` it is the last."""
        self._count += 1
        text = self._decoder.push(drawn.token)
        reason = ""
        if drawn.token == self._eot_id:
            reason = "eot"
        elif self._count == self._most:
            reason = "length"
        elif cancelled:
            reason = "cancelled"
        if reason:
            text += self._decoder.flush()
        token = GeneratedToken(
            index=self._count - 1,
            token=drawn.token,
            text=text,
            probability=drawn.probability,
            alternatives=tuple(zip(map(self._name, drawn.likeliest), drawn.chances, strict=True)),
            reason=reason,
            entropy=drawn.entropy,
            alternative_ids=drawn.likeliest,
            cache_bytes=cache_bytes,
        )
        released = self._held.push(token)
        self.ended = bool(reason) or self._held.stopped
        return released
