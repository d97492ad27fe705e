"""TOML files within bounds: what a person could have written, and no more.

The standard library's reader takes time that grows with the square of a dotted key's parts, and
memory without limit. Knows nothing of what the files mean.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from engine.plain_file import read_plain

MAX_BYTES = 4_000_000
MAX_WORK = 10_000_000  # about a second


def read_toml(path: Path, *, follow: bool = True) -> dict[str, Any]:
    """The tables of the file at `path`; with `follow` a link may lead to it.

    Raises OSError when it cannot be read, is not a plain file or is too large, and ValueError
    saying what is wrong with its contents.
    """
    text = read_plain(path, MAX_BYTES, follow=follow).decode("utf-8")
    dots = [line.count(".") for line in text.split("\n")]
    # Each key is looked up part by part, beneath every part of the header that it stands under.
    if max(dots) * (len(dots) + sum(dots)) > MAX_WORK:
        raise ValueError("a line has more dots than any key has parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
