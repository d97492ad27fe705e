"""What every benchmark writes beside its figures: date, machine, versions."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from engine import machine

RESULTS_VARIABLE = "TUI_LAB_BENCHMARK_RESULTS"
RESULTS = Path(os.environ.get(RESULTS_VARIABLE) or Path(__file__).parent / "results")
"""Where results are written: those of trials belong elsewhere."""


def machine_facts() -> dict[str, Any]:
    """Date, processor, cores and the versions that matter."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.cpu_name(),
        "cores": machine.cores(),
        "memory_bytes": machine.memory_total(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("tui-lab", "torch", "textual")},
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """`benchmarks/results/<date>-<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['date']}-{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}")
    return path
