"""The real command in a real process, for tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TINY = [
    "--corpus", "small", "--tokenizer", "char", "--batch-size", "4", "--device", "cpu",
    "--set", "model.n_layer=1", "--set", "model.n_head=2", "--set", "model.n_embd=16",
    "--set", "model.context_length=16", "--set", "sample.max_tokens=5",
    "--set", "train.threads=1", "--set", "train.precision=float32", "--set", "sample.every=10",
    "--set", 'sample.prompts=["the "]',
]  # fmt: skip
"""Options of `train` for a run of milliseconds on the corpus `small`."""


def environment() -> dict[str, str]:
    """No terminal of the developer's leaks into the test."""
    return os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb", "COLUMNS": "100"}


def command(lab: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tui_lab", "--lab", str(lab), *arguments]


def tui_lab(lab: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run to the end; the caller looks at returncode, stdout and stderr."""
    return subprocess.run(
        command(lab, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
