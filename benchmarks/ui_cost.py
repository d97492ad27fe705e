"""What drawing costs training: preset `micro` in the app against headless, interleaved.

    python -m benchmarks.ui_cost [--pairs 5] [--steps 300]

The app draws in a real pseudo-terminal of 120×36. Both train the same configuration (evaluation,
samples and saving off: they are not what is compared); the rate is taken from each run's own
metrics.jsonl, from the first quarter of its steps to the last. Pairs during which other processes
took more than 3 % of the machine are not counted, unless there are no others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import quiet
from benchmarks.report import machine_facts, write_result
from benchmarks.terminal import Terminal
from engine.config import load_preset, to_toml
from engine.config.load import override
from engine.lab import Lab

LIMIT = 0.95
SCRIPT = str(Path(sys.executable).with_name("tui-lab"))


def make_lab(folder: Path, steps: int) -> Lab:
    """A lab whose own `micro` is the shipped one, as long as the benchmark needs it."""
    lab = Lab.init(folder)
    config = override(
        load_preset(lab, "micro"),
        {
            "train.max_steps": steps,
            "train.eval_every": steps * 2,
            "sample.every": 0,
            "save.policy": "none",
        },
    )
    (lab.root / "configs").mkdir(exist_ok=True)
    (lab.root / "configs" / "micro.toml").write_text(to_toml(config))
    return lab


def steps_per_second(run: Path) -> float:
    """From the first quarter of the steps on: compiling and warming up are not drawing."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    counted = [record for record in steps if record["step"] >= steps[-1]["step"] / 4]
    first, last = counted[0], counted[-1]
    return (last["step"] - first["step"]) / (last["time"] - first["time"])


def newest_run(lab: Lab, known: set[Path]) -> Path:
    [run] = set((lab.root / "checkpoints").glob("*/")) - known
    return run


def headless(lab: Lab) -> None:
    subprocess.run(
        [SCRIPT, "train", "--config", "micro", "--json"],
        cwd=lab.root,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def in_the_app(lab: Lab, steps: int) -> int:
    """Train in the app until the run has ended; returns the bytes that were drawn."""
    known = set((lab.root / "checkpoints").glob("*/"))
    environment = {"TUI_LAB_CONFIG_DIR": str(lab.root / "config")}
    command = [SCRIPT, "--start", "micro"]
    with Terminal(command, cwd=lab.root, environment=environment) as terminal:
        deadline = time.monotonic() + 60 + steps * 2
        while time.monotonic() < deadline:
            time.sleep(0.5)
            for run in set((lab.root / "checkpoints").glob("*/")) - known:
                events = run / "events.jsonl"
                if events.exists() and '"event": "finished"' in events.read_text():
                    return terminal.size
            if terminal.process.poll() is not None:
                raise RuntimeError("the app ended before its run did")
    raise TimeoutError("the run did not end")


def measure(pairs: int, steps: int) -> dict[str, object]:
    rates: dict[str, list[float]] = {"headless": [], "app": []}
    others: dict[str, list[float]] = {"headless": [], "app": []}
    drawn: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder), steps)
        for pair in range(pairs):
            for name in ("headless", "app") if pair % 2 == 0 else ("app", "headless"):
                known = set((lab.root / "checkpoints").glob("*/"))
                with quiet.Watch() as watch:
                    if name == "app":
                        drawn.append(in_the_app(lab, steps))
                    else:
                        headless(lab)
                rate = steps_per_second(newest_run(lab, known))
                rates[name].append(rate)
                others[name].append(watch.others)
                print(
                    f"  pair {pair + 1} {name}: {rate:.2f} steps/s, "
                    f"other processes {watch.others:.1%}",
                    flush=True,
                )
    ratios = [app / bare for app, bare in zip(rates["app"], rates["headless"], strict=True)]
    noise = [max(two) for two in zip(others["app"], others["headless"], strict=True)]
    kept = [ratio for ratio, share in zip(ratios, noise, strict=True) if share <= quiet.LIMIT]
    return {
        "steps_per_second": rates,
        "other_processes": others,
        "ratios": ratios,
        "quiet_pairs": len(kept),
        "ratio": statistics.median(kept or ratios),
        "limit": LIMIT,
        "pairs": pairs,
        "steps": steps,
        "bytes_drawn": drawn,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    result = machine_facts() | measure(arguments.pairs, arguments.steps)
    print(
        f"training while the app draws: {result['ratio']:.3f} of headless (at least {LIMIT}); "
        f"pairs {', '.join(f'{ratio:.3f}' for ratio in result['ratios'])}, "
        f"of them {result['quiet_pairs']} on a quiet machine"
    )
    write_result("ui-cost", result)


if __name__ == "__main__":
    main()
