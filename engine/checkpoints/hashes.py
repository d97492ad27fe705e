"""The hashes by which a checkpoint's file is known to be what was saved.

XXH3 with 128 bits finds any accident of memory, disk or copying, at the rate of the memory itself:
SHA-256, fifteen times slower, cost training more than all the rest of a save. It does not stop a
forger, who could write the manifest anew in any case. Checkpoints of format 1 carry SHA-256 and are
read as they are. Knows no files.
Source: https://github.com/Cyan4973/xxHash
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import xxhash

NAME = "xxh3_128"
"""What new manifests call their files' hash."""


class Hash(Protocol):
    """What hashlib and xxhash share."""

    def update(self, data: memoryview | bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


_MAKERS = {NAME: xxhash.xxh3_128, "sha256": hashlib.sha256}


def new() -> Hash:
    """The hash of what is saved now."""
    return xxhash.xxh3_128()


def promised(entry: Mapping[str, Any]) -> tuple[str, str]:
    """(name, value) of the hash that a manifest's entry gives its file; ("", "") where it gives
    none that is known."""
    for name in _MAKERS:
        if isinstance(entry.get(name), str):
            return name, entry[name]
    return "", ""


def matching(entry: Mapping[str, Any]) -> Hash:
    """The kind of hash that `entry` is to be compared with, before any byte."""
    return _MAKERS.get(promised(entry)[0], xxhash.xxh3_128)()
