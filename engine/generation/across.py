"""The same prompts and the same draws from one checkpoint after another: how a run learned.

Knows checkpoints that were listed, and how one is loaded and sampled; nothing of where the results
go. One checkpoint is in memory at a time. The run may be training meanwhile: a checkpoint that its
retention removed since it was listed is told as gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from engine.checkpoints import CheckpointInfo
from engine.errors import CheckpointError, EngineError, InputError
from engine.generation.decoding import row_seed
from engine.generation.generate import GeneratedToken, generate_batch
from engine.generation.load import Generator, load_to_generate
from engine.generation.params import SamplingParams

BATCH = 16
"""Prompts generated at once: each has a cache of its own."""


@dataclass(frozen=True)
class Sampled:
    """What one checkpoint made of one prompt."""

    info: CheckpointInfo
    number: int
    """Of the prompt, from 0."""
    prompt: str
    seed: int | None
    text: str
    """The continuation."""
    reason: str
    """Why it ended, as in `GeneratedToken`."""
    tokens: int
    tokens_per_second: float
    """From the reading of the prompt to this text's last token; of prompts read in one batch each
    has its own, and together they are the throughput."""
    mean_log_probability: float
    """Nats a token, by the model's own distribution: how sure it was of what it wrote. -inf where
    the settings drew a token whose probability is 0 in float32, NaN for a text without tokens."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON and tables; what is not finite is None."""
        mean = self.mean_log_probability
        return {
            "run": self.info.run,
            "step": self.info.step,
            "val_loss": self.info.val_loss,
            "prompt": self.prompt,
            "seed": self.seed,
            "text": self.text,
            "reason": self.reason,
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 2),
            "mean_log_probability": mean if math.isfinite(mean) else None,
        }


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint without a sample, and why."""

    info: CheckpointInfo
    why: str
    gone: bool
    """It is not there any more, as retention removes it; False: it is broken."""


def sample_across(
    checkpoints: Sequence[CheckpointInfo],
    prompts: Sequence[str],
    params: SamplingParams,
    *,
    device: torch.device,
    crop: bool = False,
    quantise: str = "",
    loaded: Callable[[Generator], None] = lambda generator: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Sampled | PassedOver]:
    """Every prompt continued by every checkpoint, in their order, each result as soon as it is
    there: of a checkpoint one `Sampled` for each prompt in their order, or one `PassedOver`.

    Prompt i draws with seed + i from every checkpoint; without a seed the draws differ. `quantise`
    is as in `load_to_generate`. `loaded` is told each model before it speaks, `progress` (tokens
    done, tokens at most) after every token.
    Raises InputError for prompts that no checkpoint could take (`engine.generation.generate`) and
    for a kind of quantisation that is not known.
    """
    each = len(prompts) * params.max_tokens
    for place, info in enumerate(checkpoints):

        def advanced(tokens: int, before: int = place * each) -> None:
            progress(before + tokens, each * len(checkpoints))

        try:
            yield from _of_one(info, prompts, params, device, crop, quantise, loaded, advanced)
        except CheckpointError as error:
            yield PassedOver(info, error.title, gone=not info.path.is_dir())
        except InputError:
            raise  # the prompt's fault, and of every checkpoint's
        except EngineError as error:  # weights that are not finite: this checkpoint's own
            yield PassedOver(info, f"'{info.path}': {error.title}", gone=False)


@dataclass
class _Text:
    """One continuation as it grows."""

    began: float
    pieces: list[str] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0

    def add(self, token: GeneratedToken) -> None:
        self.pieces.append(token.text)
        self.logs.append(math.log(token.probability) if token.probability > 0 else -math.inf)
        self.reason = token.reason
        self.seconds = time.perf_counter() - self.began


def _of_one(
    info: CheckpointInfo,
    prompts: Sequence[str],
    params: SamplingParams,
    device: torch.device,
    crop: bool,
    quantise: str,
    loaded: Callable[[Generator], None],
    advanced: Callable[[int], None],
) -> Iterator[Sampled]:
    """One checkpoint's texts. Its weights are freed when this ends."""
    if not info.complete:
        raise CheckpointError(f"'{info.path}' is not complete")
    generator = load_to_generate(info, device, quantise)
    loaded(generator)
    done = 0
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        shifted = replace(params, seed=row_seed(params.seed, first))
        began = time.perf_counter()
        texts = [_Text(began) for _ in batch]
        tokens = generate_batch(
            generator.model,
            generator.tokenizer,
            batch,
            shifted,
            device=device,
            alternatives=0,
            crop=crop,
            steps=generator.steps,
        )
        for row, token in tokens:
            texts[row].add(token)
            done += 1
            advanced(done)
        for row, (prompt, text) in enumerate(zip(batch, texts, strict=True)):
            yield Sampled(
                info=info,
                number=first + row,
                prompt=prompt,
                seed=row_seed(shifted.seed, row),
                text="".join(text.pieces),
                reason=text.reason,
                tokens=len(text.logs),
                tokens_per_second=len(text.logs) / max(text.seconds, 1e-9),
                mean_log_probability=sum(text.logs) / len(text.logs) if text.logs else math.nan,
            )
