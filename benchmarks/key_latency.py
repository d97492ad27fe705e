"""How soon a key is answered while both cores train: from the press to the answer on the screen.

    python -m benchmarks.key_latency [--presses 204]

The app trains preset `micro` in a real pseudo-terminal of 120×36. Keys that change the screen are
pressed at random moments; each is answered when the screen has the text that only its answer has,
or has lost that of a dialog (-). The first round makes screens that did not exist yet, and is told
apart. So is escape, which must be waited for: it could be the beginning of an arrow key.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine_facts, write_result
from benchmarks.terminal import Shown, Terminal
from benchmarks.ui_cost import SCRIPT, make_lab

LIMIT = 0.050
ROUND = (
    # key, what its answer shows
    ("4", "temperature"),
    ("\x0f", "Talk to"),  # ctrl+o
    ("\x1b", "-Talk to"),
    ("?", "esc closes"),
    ("\x1b", "-esc closes"),
    ("1", "validation"),
)


def press(terminal: Terminal, shown: Shown, key: str, answer: str) -> float:
    def met() -> bool:
        return not shown.has(answer[1:]) if answer.startswith("-") else shown.has(answer)

    shown.moment(lambda: False)  # all that was read before
    if met():
        raise RuntimeError(f"{answer!r} is there before {key!r} was pressed")
    pressed = terminal.send(key)
    time.sleep(0.3)
    return shown.wait_for(met, seconds=20) - pressed


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(presses: int) -> dict[str, object]:
    rng = random.Random(1)
    rounds = -(-presses // len(ROUND))
    first: list[float] = []
    seconds: list[float] = []
    by_key: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder), 1_000_000)
        environment = {"TUI_LAB_CONFIG_DIR": str(lab.root / "config")}
        command = [SCRIPT, "--start", "micro"]
        with Terminal(command, cwd=lab.root, environment=environment) as terminal:
            shown = Shown(terminal)
            shown.wait_for(lambda: shown.has("tokens/s") and shown.has(" left"), seconds=120)
            time.sleep(5)
            for number in range(rounds + 1):
                for key, answer in ROUND:
                    time.sleep(rng.uniform(0.1, 0.4))
                    taken = press(terminal, shown, key, answer)
                    (seconds if number else first).append(taken)
                    if number:
                        by_key.setdefault(repr(key), []).append(taken)
                    if key == "4" and not number:
                        terminal.send("\x1b")  # out of the prompt: letters are keys
    escape = repr("\x1b")
    others = [taken for key, values in by_key.items() if key != escape for taken in values]
    return {
        "presses": len(seconds),
        "p50": statistics.median(seconds),
        "p99": percentile(seconds, 0.99),
        "p99_without_escape": percentile(others, 0.99),
        "worst": max(seconds),
        "first_time": first,
        "median_by_key": {key: statistics.median(values) for key, values in by_key.items()},
        "seconds": seconds,
        "limit": LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=204)
    result = machine_facts() | measure(parser.parse_args().presses)
    names = ("p50", "p99", "p99_without_escape", "worst")
    p50, p99, others, worst = (result[name] * 1000 for name in names)
    print(
        f"a key while training: p50 {p50:.0f} ms, p99 {p99:.0f} ms "
        f"(at most {LIMIT * 1000:.0f}; {others:.0f} without escape), "
        f"worst {worst:.0f} ms, {result['presses']} presses"
    )
    write_result("key-latency", result)


if __name__ == "__main__":
    main()
