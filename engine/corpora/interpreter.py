"""Text that every Python interpreter carries: its help topics and its library's source.

Reads what is installed and downloads nothing; which version of Python runs decides the text.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path

# Tests would teach assertions; installed packages are not the interpreter's own.
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_COMPARED = 40  # shorter paragraphs (headings, "Note:") repeat everywhere and mean nothing


@cache
def help_topics() -> tuple[str, ...]:
    """The English help texts, one a topic; empty where the interpreter was installed without.

    Some topics are excerpts of others ("with" of "compound"). Those that share paragraphs come
    first and the rest after them, by name, so that a validation split cut from the end has no copy
    in the part that trains.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return ()
    texts = {name: _clean(text) for name, text in sorted(topics.items()) if text.strip()}
    paragraphs = {name: _paragraphs(text) for name, text in texts.items()}
    seen = Counter(part for parts in paragraphs.values() for part in parts)

    def shared(name: str) -> bool:
        parts = paragraphs[name]
        repeated = sum(len(part) for part in parts if seen[part] > 1)
        return repeated > 0.05 * sum(map(len, parts))

    return tuple(texts[name] for name in sorted(texts, key=lambda name: (not shared(name), name)))


def docs_bytes() -> int:
    """Bytes of all help topics; 0 when the interpreter has none."""
    return sum(len(text.encode()) for text in help_topics())


def library() -> Path:
    """The folder of the interpreter's own library."""
    return Path(sysconfig.get_path("stdlib"))


@cache
def library_files() -> tuple[Path, ...]:
    """The library's modules, by name, without tests, installed packages, and build records."""
    found = []
    for folder, folders, files in os.walk(library()):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            # _sysconfigdata records the paths and flags of the machine that built Python.
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                if path.stat().st_size:
                    found.append(path)
    return tuple(found)


@cache
def library_bytes() -> int:
    return sum(path.stat().st_size for path in library_files())


def _clean(text: str) -> str:
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)) + "\n"


def _paragraphs(text: str) -> set[str]:
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return {part for part in parts if len(part) >= _COMPARED}
