"""`--compile`: whether and when a model is compiled for speed, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tui_lab.cli.common import note

if TYPE_CHECKING:
    from engine.generation.compiled import When

Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile for speed before the text, or never (default: behind a conversation; one "
        "text takes what an earlier one left).",
        show_default=False,
    ),
]


def when(compile: bool | None, unsaid: When) -> When:
    """When to compile, `unsaid` where neither option was given."""
    if compile is None:
        return unsaid
    return "before" if compile else "never"


def in_words(state: str, words: str) -> str:
    """What `engine.generation.compiled.Steps` tells."""
    return {
        "compiling": "compiling for speed …",
        "compiled": f"compiled {words}",
        "failed": f"not compiled: {words}",
    }[state]


def tell(state: str, words: str) -> None:
    """Say it on stderr."""
    note(in_words(state, words))
