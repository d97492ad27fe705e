"""The settings of one generation. No torch: forms, sliders and `--help` read this."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from engine.config.sections import SampleConfig
from engine.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """Applied in the order of the fields: penalty, temperature, top-k, top-p, min-p."""

    repetition_penalty: float = 1.0
    """Divides (or multiplies, when negative) the logit of tokens already there; 1 is off."""
    temperature: float = 0.8
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Keeps the k likeliest tokens; 0 is off."""
    top_p: float = 1.0
    """Keeps the likeliest tokens up to, and with, the one whose mass crosses p; 1 is off."""
    min_p: float = 0.0
    """Drops tokens less likely than this share of the likeliest; 0 is off."""
    max_tokens: int = 200
    """Tokens to generate at most."""
    seed: int | None = None
    """Of the sampler's own generator; None draws a fresh one."""
    stop: tuple[str, ...] = ()
    """Generation ends before any of these texts."""
    sinks: int = 4
    """First positions kept when a text outgrows the context, besides the newest (StreamingLLM);
    0 keeps the newest alone. Models with learned positions cannot."""

    RANGES: ClassVar[
        dict[str, tuple[float, float]]
    ] = {  # inclusive bounds, shared by the command line and the sliders
        "repetition_penalty": (1.0, 2.0),
        "temperature": (0.0, 5.0),
        "top_k": (0, 1_000_000),
        "top_p": (0.0, 1.0),
        "min_p": (0.0, 1.0),
        "max_tokens": (1, 1_000_000),
        "sinks": (0, 1_000),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} = {value}: must lie between {low:g} and {high:g}")
        if self.top_p == 0.0:
            raise InputError("top_p = 0: must be above 0", "0.9 keeps the likeliest 90 %; 1 is off")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed = {self.seed}: must lie between 0 and 2^63 - 1")

    @property
    def unfiltered(self) -> bool:
        """Whether temperature alone shapes the distribution."""
        off = self.repetition_penalty == 1.0, self.top_k == 0, self.top_p == 1.0, self.min_p == 0.0
        return all(off)


PARAM_NAMES = tuple(f.name for f in fields(SamplingParams))


def pinned_params(sample: SampleConfig) -> SamplingParams:
    """The settings of a run's own samples, as its configuration has them."""
    shared = {name: getattr(sample, name) for name in PARAM_NAMES if hasattr(sample, name)}
    return SamplingParams(**shared)
