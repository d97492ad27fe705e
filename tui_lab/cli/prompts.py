"""Where the prompts of `tui-lab generate` come from: options, files, what is piped in."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import InputError
from engine.plain_file import read_plain

MOST_BYTES = 100_000_000
"""Of a file of prompts: far above what anyone generates from, below what hurts to read."""


def read_prompts(
    given: Sequence[str], file: Path | None, prompts_file: Path | None
) -> list[str] | None:
    """The prompts; None: ask for one. Raises InputError for two sources at once, and for text that
    cannot be read."""
    sources = [
        name
        for name, there in (
            ("--prompt", bool(given)),
            ("--file", file is not None),
            ("--prompts-file", prompts_file is not None),
        )
        if there
    ]
    if len(sources) > 1:
        raise InputError(f"{' and '.join(sources)} are both given", "choose one of them")
    if given:
        return list(given)
    if prompts_file is not None:
        return _of_file(prompts_file)
    if file is None and sys.stdin.isatty():
        return None
    return [_whole(file)]


def _whole(file: Path | None) -> str:
    """One prompt: all of a file or of standard input, without the newline that editors add."""
    name = "standard input" if file is None else f"'{file}'"
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the prompt from {name}: {error.strerror}") from None
    return _decoded(data, f"the prompt in {name}").removesuffix("\n").removesuffix("\r")


def _of_file(path: Path) -> list[str]:
    """A prompt a line; of a .jsonl file a string, or an object with a "prompt". Empty lines are
    none."""
    try:
        data = read_plain(path, MOST_BYTES, follow=True)
    except OSError as error:
        raise InputError(f"cannot read the prompts from '{path}': {error.strerror}") from None
    lines = _decoded(data, f"'{path}'").split("\n")
    numbered = [(at, line.removesuffix("\r")) for at, line in enumerate(lines, 1) if line.strip()]
    if path.suffix.lower() == ".jsonl":
        prompts = [_of_json(line, f"'{path}', line {at}") for at, line in numbered]
    else:
        prompts = [line for _, line in numbered]
    if not prompts:
        raise InputError(f"'{path}' has no prompt", "write one a line")
    return prompts


def _of_json(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not JSON", 'write "text" or {"prompt": "text"}') from None
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise InputError(f"{where}: has no prompt", 'write "text" or {"prompt": "text"}')
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: half of a surrogate pair is no text") from None
    return prompt


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} is not UTF-8 text (byte {error.start})", "convert it to UTF-8"
        ) from None
