"""What the console remembers of one generation, and how it is said in words.

Plain data: no Textual, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.generation.params import SamplingParams
from tui_lab.format import size
from tui_lab.generation_thread import Token

SHORT = {
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "repetition_penalty": "repeat",
    "max_tokens": "length",
}
REASONS = {
    "length": "length reached",
    "stop": "stop text",
    "eot": "end of text",
    "cancelled": "cancelled",
    "failed": "failed",
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class Fork:
    """Where a text left another: before token `at` of the generation numbered `number`."""

    number: int
    at: int
    instead_of: str
    """The token that stands there in the other text."""


@dataclass
class Generation:
    """One prompt, its settings (the seed always known), and what came. Times in seconds."""

    number: int
    request: str
    reference: str | None
    """The checkpoint; None for the live weights."""
    label: str
    prompt: str
    params: SamplingParams
    asked: float
    run: str = ""
    """The folder of the run whose weights speak."""
    column: int = 0
    """Of the two texts side by side: 0 or 1."""
    fork: Fork | None = None
    shared: tuple[Token, ...] = ()
    """Tokens of the text that it left, up to there."""
    continued: tuple[int, ...] = ()
    """What follows the prompt from the start: the shared tokens, and the one taken instead."""
    first_piece: int = 0
    """Where it begins in the transcript."""
    drawn: list[Token] = field(default_factory=list)
    judged: str = ""
    """Who else judged these tokens, or is asked to."""
    others: tuple[float, ...] = ()
    """The probability that the other gives to each token of `sequence`."""
    started: float | None = None
    first: float | None = None
    last: float | None = None
    reason: str = ""
    error: str = ""

    @property
    def sequence(self) -> list[Token]:
        """All tokens after the prompt."""
        return [*self.shared, *self.drawn]

    @property
    def text(self) -> list[str]:
        return [token.text for token in self.sequence]

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self.drawn)

    @property
    def whole(self) -> str:
        return self.prompt + "".join(self.text)

    @property
    def run_folder(self) -> Path:
        return Path(self.reference).parent if self.reference is not None else Path(self.run)

    def add(self, token: Token) -> None:
        self.drawn.append(token)
        self.first = self.first if self.first is not None else token.at
        self.last = token.at

    @property
    def tokens_per_second(self) -> float | None:
        """Between the first token and the last: the wait before the first is told on its own."""
        if self.tokens < 2 or self.first is None or self.last is None or self.last <= self.first:
            return None
        return (self.tokens - 1) / (self.last - self.first)

    @property
    def first_token_seconds(self) -> float | None:
        """From the model's start (loading not counted) to the first token."""
        if self.first is None:
            return None
        return self.first - (self.started if self.started is not None else self.asked)

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values kept; 0 before the first token."""
        return self.drawn[-1].cache_bytes if self.drawn else 0

    def heading(self) -> str:
        """Number, who speaks, the settings; of a branch also where it left which text."""
        origin = f" · branch of {self.fork.number}" if self.fork is not None else ""
        return f"{self.number}{origin} ─ {self.label} · {settings(self.params)}"

    def figures(self) -> str:
        """Tokens, rate, time to the first token, the cache; as far as they are known."""
        tokens = f"{self.tokens} token{'' if self.tokens == 1 else 's'}"
        return " · ".join([tokens, self.costs()]) if self.tokens else tokens

    def costs(self) -> str:
        """`figures` without the tokens; empty before the first."""
        parts = []
        if (rate := self.tokens_per_second) is not None:
            parts.append(f"{rate:.0f} tok/s" if rate >= 100 else f"{rate:.1f} tok/s")
        if (wait := self.first_token_seconds) is not None:
            parts.append(f"first {wait * 1000:.0f} ms" if wait < 1 else f"first {wait:.1f} s")
        if self.cache_bytes:
            parts.append(f"cache {size(self.cache_bytes)}")
        return " · ".join(parts)

    def ending(self) -> str:
        return f"{REASONS.get(self.reason, self.reason)} · {self.figures()}"


def settings(params: SamplingParams) -> str:
    """Temperature, what differs from the defaults, and the seed, in a line."""
    default = SamplingParams()
    parts = []
    for name, short in SHORT.items():
        value = getattr(params, name)
        if name == "temperature" or value != getattr(default, name):
            parts.append(f"{short} {value:g}")
    if params.stop:
        parts.append(f"stop {stops_to_text(params.stop)}")
    return " · ".join([*parts, f"seed {params.seed}"])


def stops_to_text(stops: tuple[str, ...]) -> str:
    """Stop strings as they are typed: divided by `|`, with \\n, \\t, \\| and \\\\ escaped."""
    written = []
    for stop in stops:
        for plain, escaped in (("\\", "\\\\"), ("|", "\\|"), ("\n", "\\n"), ("\t", "\\t")):
            stop = stop.replace(plain, escaped)
        written.append(stop.replace("\r", "\\r"))
    return "|".join(written)


def text_to_stops(text: str) -> tuple[str, ...]:
    """The inverse of `stops_to_text`; empty parts are left out."""
    stops, part, escaped = [], [], False
    for character in text:
        if escaped:
            part.append(_ESCAPES.get(character, character))
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "|":
            stops.append("".join(part))
            part = []
        else:
            part.append(character)
    stops.append("".join(part))
    return tuple(stop for stop in stops if stop)


def again(generation: Generation, number: int, request: str, now: float) -> Generation:
    """The same once more: same prompt, settings and seed, and the same branch."""
    return replace(
        generation,
        number=number,
        request=request,
        asked=now,
        drawn=[],
        judged="",
        others=(),
        started=None,
        first=None,
        last=None,
        reason="",
        error="",
    )


def branch(
    generation: Generation, at: int, token: int, number: int, request: str, now: float
) -> Generation:
    """A text that is `generation` up to its token `at`, has `token` in that place, and goes on."""
    sequence = generation.sequence
    shared = tuple(sequence[:at])
    return replace(
        again(generation, number, request, now),
        fork=Fork(generation.number, at, sequence[at].text),
        shared=shared,
        continued=(*(one.token for one in shared), token),
    )
