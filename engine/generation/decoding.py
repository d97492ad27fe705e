"""Tokens drawn from a model, one step after another, for one text or several at once.

Knows a model with its cache, and the sampling settings; nothing of text, stop strings or who reads.
It works on weights that are being trained: dropout is off only while a token is computed, no
gradient is recorded, and the global random state is never touched.

How a text is kept while it grows:
  - as long as prompt and answer fit the context: a cache of that size, and exactly the network;
  - longer, with positions that are relative (rope, none): a stream of the first `sinks` positions
    and the newest (StreamingLLM), whose memory is constant; it is the same network up to the
    context's length;
  - with a window in every layer: the window, for ever;
  - with learned positions: when the context is full, its newest half is read anew.

Legend of shape suffixes: B texts, T tokens, C width of the residual stream, V vocabulary, N tokens
that the repetition penalty looks at, K likeliest tokens.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from engine.errors import EngineError
from engine.evaluation import evaluation_mode
from engine.generation.params import SamplingParams
from engine.generation.sampling import (
    LIKELIEST,
    SMALLEST_TEMPERATURE,
    exponential_races,
    new_generator,
    next_token_probabilities,
    tell,
    winners,
)
from engine.model.cache import KVCache

if TYPE_CHECKING:
    from engine.generation.compiled import CompiledStep, Steps
    from engine.model import GPT

PREFILL = 512
"""Tokens of a prompt that are read at once: enough to keep a device busy, few enough to be asked
in between whether to stop."""
AHEAD, AHEAD_SECONDS = 8, 0.03
"""Tokens that are drawn before the first of them is handed out: as many as that time suffices for,
which nobody sees."""


class Drawn(NamedTuple):
    """One token, by its number. Probabilities and entropy are the model's own, at temperature 1."""

    token: int
    probability: float
    entropy: float
    """Nats."""
    likeliest: tuple[int, ...]
    chances: list[float]
    """The probabilities of `likeliest`."""


class Stopped(Exception):
    """Somebody asked to stop while a prompt was being read."""


class Decoding:
    """Texts that grow by a token at each `next`. Row i draws with the seed of `row_seed`."""

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        device: torch.device,
        likeliest: int = 5,
        should_stop: Callable[[], bool] = lambda: False,
        steps: Steps | None = None,
    ) -> None:
        """`prompts`: token ids, at least one each. Nothing is computed yet. `steps`: compiled ones
        of the model, if there are any. Raises InputError for what `KVCache` cannot do: prompts of
        different lengths that outgrow the context."""
        self.model, self.params, self.device = model, params, device
        self._steps = steps
        if steps is not None:
            steps.begin()
        self.likeliest = min(likeliest, model.vocab_size)
        drawn = params.unfiltered and params.temperature >= SMALLEST_TEMPERATURE
        self._may_draw_compiled = drawn and self.likeliest <= LIKELIEST
        self._should_stop = should_stop
        self.first: Sequence[int] = ()
        """A token for each row that is taken in the first draw's place: where a text branches."""
        seeds = [row_seed(params.seed, row) for row in range(len(prompts))]
        self._generators = [new_generator(seed, device) for seed in seeds]
        self._races: list[Tensor] = []
        """(B, V) for each of the next tokens, the next one last."""
        self._told: deque[Tensor] = deque()
        """`tell` of tokens that are drawn and not handed out yet."""
        self._left = params.max_tokens
        """Tokens still to be drawn."""
        self._began, self._drawn_last = time.perf_counter(), 1
        """When the last ones were begun, and how many they were: what a token takes."""
        self._step: CompiledStep | None = None
        """Found once, it serves as long as the rows and the cache stay."""
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        self._unread = torch.tensor(rows, dtype=torch.long, device=device)
        self._padding = torch.tensor(padding, dtype=torch.long, device=device)
        self._going: Tensor | None = None
        """Rows of the cache that go on; None: all. A compiled step is made for a number of rows."""
        self._context = context = model.config.context_length
        # Padding repeats the row's first token: the penalty counts a token once however often.
        first_B1 = self._unread.gather(1, self._padding[:, None])
        places_T = torch.arange(longest, device=device)
        seen = self._unread.where(places_T >= self._padding[:, None], first_B1)
        self._early = seen[:, -context:]
        self._late: list[list[int]] = []
        """The tokens since, of all rows, step by step: see `_seen`."""
        self._temperature = torch.tensor([params.temperature], device=device)
        self.cache = self._new_cache(longest)

    def next(self) -> list[Drawn]:
        """One more token for each row. Raises Stopped in a prompt that is still being read, and
        EngineError when the weights are not finite."""
        if not self._told:
            self._draw_ahead()
        told = self._told.popleft().tolist()  # the one copy to the host, and wait
        drawn = [self._drawn(numbers) for numbers in told]
        self._late.append([one.token for one in drawn])
        if len(self._late) == self._context:
            self._seen()  # forgets what no longer counts
        return drawn

    def _draw_ahead(self) -> None:
        """At least one more token; by a compiled step several, as `AHEAD` and `AHEAD_SECONDS` say.

        What Python does with a token is then done for one after the other: weights, which pass
        through the caches at every step, push it out of them.
        """
        now = time.perf_counter()
        each, self._began = (now - self._began) / self._drawn_last, now
        most = max(1, min(AHEAD, self._left, int(AHEAD_SECONDS / max(each, 1e-6))))
        while len(self._told) < most:
            told_BX = self._draw_compiled(self._race())
            if told_BX is None:
                if self._told:
                    break
                with torch.inference_mode(), evaluating(self.model):
                    told_BX = self._draw(self._race())
                most = 1
            self._races.pop()
            self._told.append(told_BX)
            self._left -= 1
        self._drawn_last = len(self._told)

    def _race(self) -> Tensor:
        """(B, V) of the next token."""
        if not self._races:
            races = exponential_races(self._generators, self.model.vocab_size, self.device)
            self._races = races[::-1]
        return self._races[-1]

    def _draw_compiled(self, race_BV: Tensor) -> Tensor | None:
        """By a compiled step that draws as well, if there is one and it can: `tell` of the tokens.
        It records no gradient and drops nothing out, whatever the mode: to change modes costs."""
        if self._steps is None or self._full():
            return None
        if self._step is None:
            if not self._may_draw_compiled or self._unread.shape[1] > 1 or not self.cache.n:
                return None
            if self.first:
                return None
            self._step = self._steps.next(self.cache)
            if self._step is None:
                return None
        if self._going is not None:  # what rows that have ended draw, nobody looks at
            all_BV = torch.ones(len(self._unread), self.model.vocab_size, device=self.device)
            race_BV = all_BV.index_copy(0, self._going, race_BV)
        try:
            self._unread, told_BX = self._step.draw(
                self._unread, self.cache, race_BV, self._temperature
            )
        except RuntimeError as error:
            self._step = None
            self._steps.give_up(error)
            return None
        return told_BX if self._going is None else told_BX[self._going]

    def _draw(self, race_BV: Tensor) -> Tensor:
        logits_BV, own_BV, entropy_B = self._scores()
        seen_BN = self._seen() if self.params.repetition_penalty != 1.0 else self._early
        tokens_B = winners(next_token_probabilities(logits_BV, seen_BN, self.params), race_BV)
        if self.first:
            tokens_B = torch.tensor(self.first, dtype=torch.long, device=self.device)
            self.first = ()
        if self._going is None:
            self._unread = tokens_B[:, None]
        else:
            self._unread = self._unread.index_copy(0, self._going, tokens_B[:, None])
        return tell(own_BV, entropy_B, tokens_B, self.likeliest)

    def _seen(self) -> Tensor:
        """(B, N) the newest tokens of the texts, as many as the context holds at most. Made when it
        is asked for: most texts never do."""
        if self._late:
            late_BN = torch.tensor(self._late, dtype=torch.long, device=self.device).T
            self._early = torch.cat((self._early, late_BN), dim=1)[:, -self._context :]
            self._late.clear()
        return self._early

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self.device)
        self._step = None
        with torch.inference_mode():
            self._races = [race_BV[chosen] for race_BV in self._races]
            self._told = deque(told_BX[chosen] for told_BX in self._told)
            self._early = self._seen()[chosen]
            self._generators = [self._generators[row] for row in rows]
            self._going = chosen if self._going is None else self._going[chosen]
            if self._steps is None or self._steps.next(self.cache) is None:
                self._leave_out()

    def _leave_out(self) -> None:
        """Drop the rows that do not go on."""
        if self._going is not None:
            self._unread, self._padding = self._unread[self._going], self._padding[self._going]
            self.cache.select(self._going)
            self._going = None

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """`scores` after the newest token, of the rows that go on."""
        unread_BT = self._start_anew() if self._full() else self._unread
        found = scores(self.model, self.cache, unread_BT, self._should_stop, self._steps)
        if self._going is None:
            return found
        logits_BV, own_BV, entropy_B = (each[self._going] for each in found)
        return logits_BV, own_BV, entropy_B

    def _full(self) -> bool:
        return self.cache.stream is None and self.cache.n + self._unread.shape[1] > self.cache.steps

    def _start_anew(self) -> Tensor:
        """A new cache for the newest half of the context, which is still to be read."""
        self._leave_out()
        self._step = None
        newest_BT = self._seen()[:, -max(1, self._context // 2) :]
        self._padding = (self._padding - (self.cache.n + 1 - newest_BT.shape[1])).clamp(min=0)
        self.cache = self._new_cache(self._context)
        return newest_BT

    def _new_cache(self, length: int) -> KVCache:
        return new_cache(self.model, self._padding, length, self.params, self.device)

    def _drawn(self, numbers: list[float]) -> Drawn:
        token, probability, entropy = numbers[:3]
        if not math.isfinite(probability):
            raise EngineError(
                "the model's output is not finite: its weights have diverged",
                "generate from an earlier checkpoint",
            )
        told = (len(numbers) - 3) // 2
        best = min(told, self.likeliest)
        ids = tuple(map(int, numbers[3 : 3 + best]))
        return Drawn(int(token), probability, entropy, ids, numbers[3 + told : 3 + told + best])


def new_cache(
    model: GPT, padding_B: Tensor, length: int, params: SamplingParams, device: torch.device
) -> KVCache:
    """An empty cache for texts of `length` tokens, padding included, and `max_tokens` more: of the
    kind that the module's docstring tells. Raises InputError for what `KVCache` cannot do."""
    config = model.config
    steps = length + params.max_tokens - 1  # the last token is never read
    stream = None
    if not config.windowed and steps > config.context_length:
        steps = config.context_length
        if config.position != "learned":
            stream = min(params.sinks, config.context_length - 1)
    return KVCache(
        config,
        len(padding_B),
        steps,
        device=device,
        dtype=model.wte.weight.dtype,
        padding=padding_B,
        stream=stream,
    )


def read(model: GPT, cache: KVCache, unread_BT: Tensor, should_stop: Callable[[], bool]) -> Tensor:
    """Read `unread_BT` in chunks; what the output matrix reads after the last token: (B, C).

    Raises Stopped when `should_stop` says so between two chunks.
    """
    T, at = unread_BT.shape[1], 0
    while True:
        size = min(PREFILL, T - at, cache.largest_chunk)
        if cache.stream is not None:
            # A chunk makes room for itself before it is read: small ones forget less early.
            size = min(size, max(1, cache.largest_chunk // 4))
        features_BTC = model.features(unread_BT[:, at : at + size], cache)
        at += size
        if at == T:
            return features_BTC[:, -1]
        if should_stop():
            raise Stopped


def scores(
    model: GPT,
    cache: KVCache,
    unread_BT: Tensor,
    should_stop: Callable[[], bool],
    steps: Steps | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """After `unread_BT`, which is read: logits (B, V), their softmax (B, V) and its entropy in nats
    (B,), in float32. By a compiled step where `steps` has one. Raises Stopped."""
    if steps is not None and unread_BT.shape[1] == 1 and cache.n:
        step = steps.next(cache)
        if step is not None:
            try:
                return step(unread_BT, cache)
            except RuntimeError as error:  # the cache has not counted the token: it is read below
                steps.give_up(error)
    logits_BV = model.logits(read(model, cache, unread_BT, should_stop)).float()
    own_BV = logits_BV.softmax(-1)
    return logits_BV, own_BV, torch.special.entr(own_BV).sum(-1)


def row_seed(seed: int | None, row: int) -> int | None:
    """The seed of a row of a batch: generated alone with it, the row gives the same tokens."""
    return None if seed is None else (seed + row) % 2**63


@contextmanager
def evaluating(model: GPT) -> Iterator[None]:
    """Dropout off inside. To look at every module costs a small model a per cent of a token, and a
    model whose root is in eval mode is so as a whole."""
    if not model.training:
        yield
        return
    with evaluation_mode(model):
        yield
