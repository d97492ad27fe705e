"""The samples of `tui-lab generate` when they are done: as JSON, as text, to a file; and figures.

Knows a loaded generator and its tokens; nothing of options.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from tui_lab import format
from tui_lab.cli.common import note, say, say_json

if TYPE_CHECKING:
    from engine.generation.beam import Beams
    from engine.generation.generate import GeneratedToken
    from engine.generation.load import Generator
    from engine.generation.params import SamplingParams

SEPARATOR = "---"
"""A line of its own between samples."""
BATCH = 16
"""Prompts generated at once: each has a cache of its own."""


class Stopwatch:
    """What `--stats` tells of one call: tokens a second, the wait for the first, the cache."""

    def __init__(self) -> None:
        self.tokens = self.cache_bytes = 0
        self._began = self._last = time.perf_counter()
        self._first: float | None = None

    def count(self, token: GeneratedToken) -> None:
        self._last = time.perf_counter()
        self._first = self._last if self._first is None else self._first
        self.tokens += 1
        self.cache_bytes = max(self.cache_bytes, token.cache_bytes)

    def told(self) -> str:
        """In words. The rate leaves the wait for the first token out, which is told itself."""
        if self._first is None:
            return "no tokens"
        words = [f"{self.tokens} tokens"]
        if self.tokens > 1 and self._last > self._first:
            words.append(f"{(self.tokens - 1) / (self._last - self._first):.1f} tokens/s")
        words.append(f"first after {format.duration(self._first - self._began)}")
        return ", ".join([*words, f"cache {format.size(self.cache_bytes)}"])


def sample(
    generator: Generator,
    prompts: Sequence[str],
    params: SamplingParams,
    *,
    crop: bool,
    alternatives: int,
    stats: bool,
) -> Iterator[dict[str, Any]]:
    """One sample of each prompt, in their order, as the object that `--json` prints. Prompt i
    draws with seed + i."""
    from engine.generation.decoding import row_seed

    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        shifted = replace(params, seed=row_seed(params.seed, first))
        watch, started = Stopwatch(), time.perf_counter()
        texts: list[list[GeneratedToken]] = [[] for _ in batch]
        for row, token in _tokens(generator, batch, shifted, crop, alternatives):
            watch.count(token)
            texts[row].append(token)
        if stats:
            note(watch.told() + (f", {len(batch)} at once" if len(batch) > 1 else ""))
        seconds = time.perf_counter() - started
        for row, (prompt, tokens) in enumerate(zip(batch, texts, strict=True)):
            seed = row_seed(shifted.seed, row)
            yield _as_object(generator, prompt, tokens, seed, seconds)


def _tokens(
    generator: Generator,
    prompts: Sequence[str],
    params: SamplingParams,
    crop: bool,
    alternatives: int,
) -> Iterator[tuple[int, GeneratedToken]]:
    from engine.generation.generate import generate_batch

    if len(prompts) == 1:
        for token in generator.stream(prompts[0], params, alternatives=alternatives, crop=crop):
            yield 0, token
        return
    yield from generate_batch(
        generator.model,
        generator.tokenizer,
        prompts,
        params,
        device=generator.device,
        alternatives=alternatives,
        crop=crop,
        steps=generator.steps,
    )


def _as_object(
    generator: Generator,
    prompt: str,
    tokens: Sequence[GeneratedToken],
    seed: int | None,
    seconds: float,
) -> dict[str, Any]:
    return {
        "run": generator.info.run,
        "step": generator.info.step,
        "prompt": prompt,
        "text": "".join(token.text for token in tokens),
        "reason": tokens[-1].reason,
        "seed": seed,
        "seconds": round(seconds, 4),
        "tokens": [
            {
                "token": token.token,
                "text": token.text,
                "probability": token.probability,
                "alternatives": [list(pair) for pair in token.alternatives],
            }
            for token in tokens
        ],
    }


def search(
    generator: Generator, prompts: Sequence[str], settings: Beams, *, crop: bool, stats: bool
) -> Iterator[dict[str, Any]]:
    """What a beam search finds for each prompt: the best text, and all of them by their scores."""
    from engine.generation.beam import beam_search

    for prompt in prompts:
        started = time.perf_counter()
        found = beam_search(
            generator.model,
            generator.tokenizer,
            prompt,
            settings,
            device=generator.device,
            crop=crop,
            steps=generator.steps,
        )
        seconds = time.perf_counter() - started
        if stats:
            rate = len(found[0].tokens) / max(seconds, 1e-9)
            note(f"{len(found[0].tokens)} tokens, {rate:.1f} tokens/s, {settings.beams} beams")
        yield {
            "run": generator.info.run,
            "step": generator.info.step,
            "prompt": prompt,
            "text": found[0].text,
            "reason": found[0].reason,
            "seconds": round(seconds, 4),
            "tokens": list(found[0].tokens),
            "beams": [
                {
                    "score": one.score,
                    "text": one.text,
                    "reason": one.reason,
                    "tokens": list(one.tokens),
                }
                for one in found
            ],
        }


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse, before anything is computed, what could not be written afterwards. Raises
    InputError."""
    folder = out.parent
    if out.is_dir():
        raise InputError(f"--out '{out}' is a directory", "name a file")
    if not folder.is_dir():
        raise InputError(f"--out '{out}': there is no directory '{folder}'", "make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out '{out}': no permission to write in '{folder}'")
    if os.path.lexists(out) and not overwrite:
        raise _taken(out)


def _taken(out: Path) -> InputError:
    return InputError(
        f"--out '{out}' is there already: nothing was written",
        "name another file, or replace it: --overwrite",
    )


def deliver(
    samples: Sequence[dict[str, Any]], *, echo: bool, out: Path, json: bool, overwrite: bool
) -> None:
    """All samples to a file, as JSON lines or plain text. Raises InputError."""
    from engine.atomic import write_text

    if json:
        from json import dumps

        text = "".join(dumps(one, ensure_ascii=False) + "\n" for one in samples)
    else:
        texts = [(one["prompt"] if echo else "") + one["text"] for one in samples]
        text = f"\n{SEPARATOR}\n".join(texts) + "\n"
    try:
        write_text(out, text, new=not overwrite)
    except FileExistsError:
        raise _taken(out) from None
    except OSError as error:
        raise InputError(f"cannot write '{out}': {error.strerror}") from error
    note(f"wrote {sum(len(one['tokens']) for one in samples)} tokens to '{out}'")


def show(one: dict[str, Any], *, number: int, echo: bool, json: bool) -> None:
    """A sample that is done, on stdout."""
    if json:
        say_json(one)
        return
    from tui_lab.cli.paint import Painter

    if number:
        say(SEPARATOR)
    painter = Painter()
    if echo:
        painter.prompt(one["prompt"])
    if "beams" in one:
        painter.plain(one["text"])
    else:
        for token in one["tokens"]:
            painter.token(token["text"], token["probability"])
    painter.end()
