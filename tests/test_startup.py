"""How soon the command line answers. The bound is generous: tests run on busy machines."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from engine import __version__

SCRIPT = Path(sys.executable).with_name("tui-lab")
SECONDS = 2.0
"""A bound that a busy machine keeps; `benchmarks/first_paint.py` measures the real figure."""


def best_of(times: int, *command: str) -> tuple[float, str]:
    """The shortest wall time of a few runs, and what the last one wrote."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds), result.stdout


def test_help_answers_at_once(record_property):
    seconds, output = best_of(3, str(SCRIPT), "--help")
    record_property("seconds", seconds)
    print(f"tui-lab --help: {seconds:.3f} s")  # noqa: T201
    assert "train" in output
    assert seconds < SECONDS


def test_the_version_is_the_package_s():
    _, output = best_of(1, str(SCRIPT), "--version")
    assert output.strip() == f"tui-lab {__version__}"


def test_help_imports_neither_torch_nor_textual():
    code = (
        "import sys\n"
        "sys.argv = ['tui-lab', '--help']\n"
        "from tui_lab.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'textual', 'numpy') if name in sys.modules])\n"
    )
    _, output = best_of(1, sys.executable, "-c", code)
    assert output.splitlines()[-1] == "[]"
