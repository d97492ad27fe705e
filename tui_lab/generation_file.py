"""A generation as a file: its text alone, or all that is known of it, to be repeated.

    .json   settings, seed, checkpoint, and each token with its probability
    other   the prompt and what came

Knows neither screens nor torch. A file that exists is never written over.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine import atomic
from engine.errors import EngineError, InputError
from tui_lab.generation_thread import Token
from tui_lab.generations import Generation

FORMAT = 1


def write(path: Path, generation: Generation) -> None:
    """Write it in the form that the name asks for, whole or not at all. Raises InputError when the
    file is there already, EngineError when it cannot be written."""
    if path.suffix.lower() == ".json":
        text = json.dumps(record(generation), indent=1, ensure_ascii=False) + "\n"
    else:
        text = generation.whole
    try:
        atomic.write_bytes(path, text.encode("utf-8", "replace"), new=True)
    except FileExistsError as error:
        raise InputError(f"{path} exists already", "choose another name") from error
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}", "choose another place") from error


def record(generation: Generation) -> dict[str, Any]:
    """All that is known of it, ready for JSON.

    The same checkpoint, prompt, `continued` tokens and settings give the same tokens again.
    `entropy` is in nats; `other_probability` is that of the model named in `judged_by`.
    """
    others = generation.others or (None,) * len(generation.sequence)
    return {
        "format": FORMAT,
        "checkpoint": generation.reference,
        "run": str(generation.run_folder),
        "label": generation.label,
        "prompt": generation.prompt,
        "continued": list(generation.continued),
        "settings": asdict(generation.params),
        "text": generation.whole,
        "reason": generation.reason,
        "branch_of": asdict(generation.fork) if generation.fork is not None else None,
        "judged_by": generation.judged if generation.others else None,
        "tokens_per_second": generation.tokens_per_second,
        "first_token_seconds": generation.first_token_seconds,
        "cache_bytes": generation.cache_bytes,
        "tokens": [
            _token(token, other) for token, other in zip(generation.sequence, others, strict=True)
        ],
    }


def _token(token: Token, other: float | None) -> dict[str, Any]:
    pairs = zip(token.alternative_ids, token.alternatives, strict=False)  # old runs send no ids
    return {
        "id": token.token,
        "text": token.text,
        "probability": token.probability,
        "entropy": token.entropy,
        "other_probability": other,
        "alternatives": [
            {"id": number, "text": text, "probability": share} for number, (text, share) in pairs
        ],
    }
