"""What the console remembers of one generation, and how it is said in words.

Plain data: no Textual, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.generation.params import SamplingParams

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
    first_piece: int = 0
    """Where it begins in the transcript."""
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    started: float | None = None
    first: float | None = None
    last: float | None = None
    reason: str = ""

    @property
    def whole(self) -> str:
        return self.prompt + "".join(self.text)

    def add(self, text: str, at: float) -> None:
        self.text.append(text)
        self.tokens += 1
        self.first = self.first if self.first is not None else at
        self.last = at

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

    def heading(self) -> str:
        return f"{self.number} ─ {self.label} · {settings(self.params)}"

    def figures(self) -> str:
        """Tokens, rate, time to the first token; as far as they are known."""
        parts = [f"{self.tokens} token{'' if self.tokens == 1 else 's'}"]
        if (rate := self.tokens_per_second) is not None:
            parts.append(f"{rate:.0f} tok/s" if rate >= 100 else f"{rate:.1f} tok/s")
        if (wait := self.first_token_seconds) is not None:
            parts.append(f"first {wait * 1000:.0f} ms" if wait < 1 else f"first {wait:.1f} s")
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
    """The same once more: same prompt, settings and seed."""
    return replace(
        generation,
        number=number,
        request=request,
        asked=now,
        text=[],
        tokens=0,
        started=None,
        first=None,
        last=None,
        reason="",
    )
