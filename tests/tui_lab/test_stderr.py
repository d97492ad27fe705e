"""Whatever goes wrong is told without obeying what it quotes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import EngineError, in_words
from engine.text import is_safe

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]0;title\x07\u202e"


def ends(*arguments: str, program: str = "") -> tuple[int, str]:
    """Exit code and stderr of `tui-lab ARGUMENTS`, or of a program that has taken its hooks."""
    command = ["-c", program] if program else ["-m", "tui_lab", *arguments]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("train", "--config", HOSTILE), 2),
        (("--debug", "train", "--config", HOSTILE), 1),
        (("train", f"--{HOSTILE}"), 2),
        ((HOSTILE,), 2),
        (("--lab", HOSTILE + "x" * 400, "runs"), 1),  # no file can have such a name
    ],
    ids=["refusal", "traceback", "option", "command", "operating system"],
)
def test_a_refusal_quotes_what_it_refuses_visibly(arguments: tuple[str, ...], code: int):
    found, told = ends(*arguments)
    assert found == code
    assert "title" in told and all(is_safe(line) for line in told.split("\n"))
    assert ("Traceback" in told) == ("--debug" in arguments)


@pytest.mark.parametrize(
    "raising",
    [
        "raise ValueError(HOSTILE)",
        "import threading; t = threading.Thread(target=int, args=[HOSTILE]); t.start(); t.join()",
        "import warnings; warnings.warn(HOSTILE)",
    ],
    ids=["exception", "thread", "warning"],
)
def test_python_s_own_words_are_made_visible(raising: str):
    hooks = f"from tui_lab import stderr; stderr.install(); HOSTILE = {HOSTILE!a}; "
    _, told = ends(program=hooks + raising)
    assert "title" in told and all(is_safe(line) for line in told.split("\n"))


def test_an_exception_that_cannot_speak_is_named():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert in_words(Mute()) == "Mute (it cannot be put into words)"
    assert in_words(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert in_words(MemoryError()) == "MemoryError"
    assert in_words(EngineError("full", "make room")) == "full (make room)"
