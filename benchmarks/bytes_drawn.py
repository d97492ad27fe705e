"""What the app sends to the terminal while it trains preset `micro`: bytes a second.

    python -m benchmarks.bytes_drawn [--seconds 20]

In a real pseudo-terminal of each size, and at 120×36 also as a slow link is drawn. From the moment
at which the first step is on the screen: an app that opens paints everything once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine_facts, write_result
from benchmarks.terminal import Terminal
from benchmarks.ui_cost import BYTES_LIMIT, SCRIPT, make_lab

SIZES = ((80, 24), (120, 36), (200, 50))
JUDGED = (120, 36)


def bytes_a_second(folder: Path, columns: int, rows: int, seconds: float, *options: str) -> float:
    lab = make_lab(folder, 1_000_000)
    folders = {name: str(lab.root / name) for name in ("config", "cache")}
    with Terminal(
        [SCRIPT, *options, "--start", "micro"],
        cwd=lab.root,
        environment={
            "TUI_LAB_CONFIG_DIR": folders["config"],
            "TUI_LAB_CACHE_DIR": folders["cache"],
        },
        columns=columns,
        rows=rows,
    ) as terminal:
        terminal.wait_for(" left", seconds=120)
        time.sleep(2)
        begun, before = time.perf_counter(), terminal.size
        time.sleep(seconds)
        return (terminal.size - before) / (time.perf_counter() - begun)


def measure(seconds: float) -> dict[str, object]:
    cases: dict[str, tuple[int, int, tuple[str, ...]]] = {
        f"{columns}x{rows}": (columns, rows, ()) for columns, rows in SIZES
    }
    cases["slow link"] = (*JUDGED, ("--slow-link",))
    found = {}
    for name, (columns, rows, options) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = bytes_a_second(Path(folder), columns, rows, seconds, *options)
        print(f"  {name}: {found[name] / 1000:.2f} kB/s", flush=True)
    return {
        "bytes_per_second": found,
        "judged": "x".join(map(str, JUDGED)),
        "limit": BYTES_LIMIT,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    result = machine_facts() | measure(parser.parse_args().seconds)
    write_result("bytes-drawn", result)


if __name__ == "__main__":
    main()
