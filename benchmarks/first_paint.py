"""From exec to the first paint: an empty Textual app against `tui-lab`, interleaved.

    python -m benchmarks.first_paint [--pairs 10]

Both run in a real pseudo-terminal of 120×36; the moment is that at which the text of the first
frame has been read from it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.report import machine_facts, write_result
from benchmarks.terminal import Terminal

EMPTY = """
from textual.app import App
from textual.widgets import Static

class Empty(App):
    def compose(self):
        yield Static("painted")

Empty().run()
"""
LIMIT = 2.0


def first_paint(command: list[str], text: str, folder: Path) -> float:
    """Seconds from exec until `text` is on the terminal."""
    environment = {"TUI_LAB_CONFIG_DIR": str(folder / "config")}
    with Terminal(command, cwd=folder, environment=environment) as terminal:
        return terminal.wait_for(text) - terminal.started


def measure(pairs: int) -> dict[str, object]:
    script = str(Path(sys.executable).with_name("tui-lab"))
    commands = {
        "empty": ([sys.executable, "-c", EMPTY], "painted"),
        "tui_lab": ([script], "Checkpoints"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(pairs + 1):  # the first pair warms the file cache, and is not counted
            order = list(commands) if pair % 2 == 0 else list(reversed(commands))
            for name in order:
                taken = first_paint(*commands[name], Path(folder))
                if pair:
                    seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": seconds,
        "median": medians,
        "ratio": medians["tui_lab"] / medians["empty"],
        "ratio_of_pairs": statistics.median(
            mine / empty for mine, empty in zip(seconds["tui_lab"], seconds["empty"], strict=True)
        ),
        "limit": LIMIT,
        "pairs": pairs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    result = machine_facts() | measure(pairs)
    medians = result["median"]
    print(
        f"first paint: empty app {medians['empty']:.3f} s, tui-lab {medians['tui_lab']:.3f} s, "
        f"ratio {result['ratio']:.2f} (at most {LIMIT})"
    )
    write_result("first-paint", result)


if __name__ == "__main__":
    main()
