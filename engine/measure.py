"""One checkpoint against one corpus: which part of it, cut how, and what came out.

Brings together what `engine.evaluation` keeps apart: checkpoints, their tokenizers, prepared
corpora and windows. Knows nothing of terminals and files of results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from engine.checkpoints import CheckpointInfo
from engine.corpora import Prepared, prepare
from engine.data import Windows, split
from engine.device import choose_precision
from engine.errors import CorpusError, InputError
from engine.evaluation import Evaluation, evaluate
from engine.generation.load import Generator, digests, load_checkpoint
from engine.lab import Lab

PARTS = ("val", "train", "all")
LOGITS_AT_ONCE = {"cpu": 2**25, "cuda": 2**29}
"""Numbers in one batch's logits, by far the largest tensor: 128 MB, 2 GB in float32."""


@dataclass(frozen=True)
class Measured:
    """An evaluation with everything that its figures depend on."""

    run: str
    step: int
    trained_tokens: int
    corpus: str
    split: str
    context: int
    stride: int
    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    """Targets scored."""
    bytes: int
    windows: int
    seconds: float
    device: str
    precision: str
    same_text: bool
    """Whether the corpus is to the byte the one that the run was trained on (so that its `val` is
    what training never saw)."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """What to score. Empty and 0 take what the checkpoint's own run says."""

    corpus: str = ""
    split: str = ""
    """val, train or all; empty: val on the run's own corpus, all of another one."""
    stride: int = 0
    context: int = 0
    batch_size: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.split not in ("", *PARTS):
            raise InputError(f"split = {self.split!r}: not one of {', '.join(PARTS)}")
        for name in ("stride", "context", "batch_size"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}: must not be negative")


def measure(
    lab: Lab,
    info: CheckpointInfo,
    request: Request,
    *,
    device: torch.device,
    preparing: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> Measured | None:
    """Score the checkpoint `info`; None when `should_stop` said so.

    The split is cut before windows are, so that no window straddles it. `preparing(what, done,
    total)` tells of tokenizing, `progress(done, total)` of windows. Raises InputError for a context
    longer than the model's, CheckpointError, CorpusError (also for a part shorter than a window),
    TokenizerError for text that the checkpoint's tokenizer cannot spell.
    """
    precision = choose_precision(device, request.precision)
    loaded = load_checkpoint(info, device)
    context = _context(loaded, request)
    corpus = request.corpus or loaded.config.data.corpus
    part = request.split or ("val" if corpus == loaded.config.data.corpus else "all")
    prepared = prepare(lab, corpus, loaded.tokenizer, progress=preparing)
    start, stop = _bounds(part, prepared, loaded)
    windows = Windows(prepared.tokens(), start, stop, context, request.stride)
    if not len(windows):
        longest = windows.n_tokens - 1
        raise CorpusError(
            f"{corpus}, {part}: {windows.n_tokens} tokens hold no window of context {context}",
            f"the longest context that fits is {longest}: --context {longest}"
            if longest > 0
            else "evaluate a larger corpus or another --split",
        )
    result = evaluate(
        loaded.model,
        windows,
        loaded.tokenizer.byte_lengths(),
        batch_size=request.batch_size or _batch_size(loaded, context),
        device=device,
        precision=precision,
        should_stop=should_stop,
        progress=progress,
    )
    if result is None:
        return None
    same_text = digests(loaded.meta).get("corpus") == prepared.digest
    return _measured(info, corpus, part, result, str(device), precision, same_text)


def _context(loaded: Generator, request: Request) -> int:
    longest = loaded.config.model.context_length
    if request.context > longest:
        raise InputError(
            f"context = {request.context}: the model's context_length is {longest}",
            f"pass --context {longest} or less",
        )
    return request.context or longest


def _bounds(part: str, prepared: Prepared, loaded: Generator) -> tuple[int, int]:
    """The tokens [start, stop) of a part, cut where the checkpoint's own run cuts."""
    config = loaded.config
    if part == "all":
        return 0, prepared.n_tokens
    if not config.data.val_fraction:
        raise CorpusError(
            f"the run '{loaded.info.run}' kept no validation part (data.val_fraction is 0)",
            "evaluate --split all",
        )
    boundary = split(
        prepared.n_tokens,
        config.data.val_fraction,
        config.model.context_length,
        prepared.document_starts(),
    )
    return (boundary, prepared.n_tokens) if part == "val" else (0, boundary)


def _batch_size(loaded: Generator, context: int) -> int:
    room = LOGITS_AT_ONCE.get(loaded.device.type, LOGITS_AT_ONCE["cpu"])
    return min(64, max(1, room // (context * loaded.tokenizer.vocab_size)))


def _measured(
    info: CheckpointInfo,
    corpus: str,
    part: str,
    result: Evaluation,
    device: str,
    precision: str,
    same_text: bool,
) -> Measured:
    return Measured(
        run=info.run,
        step=info.step,
        trained_tokens=info.tokens,
        corpus=corpus,
        split=part,
        device=device,
        precision=precision,
        same_text=same_text,
        **asdict(result),
    )
